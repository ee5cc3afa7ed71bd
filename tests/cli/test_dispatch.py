"""The top of the command line: help, version, verbs, and what it costs to ask."""

import subprocess
import sys
import time

import pytest

from ourospec import __version__, cli


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "ourospec.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def test_help_names_every_verb_and_where_to_start(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb, what in cli.VERBS.items():
        assert verb in out
        assert what in out
    assert "ouro train adaptive_lm/tiny" in out
    assert cli.main([]) == 0
    assert cli.main(["help"]) == 0


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ouro {__version__}\n"


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("gen", "generate"), ("doctr", "doctor")])
def test_an_unknown_verb_suggests_one(capsys, typed, meant):
    assert cli.main([typed]) == 2
    assert f"Did you mean {meant}?" in capsys.readouterr().err


def test_an_unknown_option_at_the_top(capsys):
    assert cli.main(["--versoin"]) == 2
    assert "There is no option '--versoin'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_every_verb_has_help_of_its_own(capsys, verb):
    assert cli.main([verb, "--help"]) == 0
    assert "usage: " in capsys.readouterr().out


def test_help_is_quick_and_loads_nothing_heavy():
    # The target is 0.3 s; a machine under load gets slack, a heavy import would take whole seconds.
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert run("--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.6

    heavy = "{'torch', 'numpy', 'pydantic', 'tyro', 'rich'}"
    code = f"import sys; from ourospec.cli import main; main(['--help']); sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_help_of_a_verb_does_not_load_torch():
    code = (
        "import sys\n"
        "from ourospec.cli import main, VERBS\n"
        "for verb in VERBS: assert main([verb, '--help']) == 0, verb\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_package_imports_without_torch():
    code = "import sys, ourospec, ourospec.runs, ourospec.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_reader_who_leaves_early_is_no_failure():
    with subprocess.Popen(
        [sys.executable, "-m", "ourospec.cli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        err = process.stderr.read().decode()
    assert "Traceback" not in err
    assert process.returncode == 0
