"""The command `ouro`: find the verb, run it, turn what goes wrong into a line and an exit code.

Nothing is imported here but the standard library, and a verb's module only when it is called: `ouro --help`
answers before torch could even be found on the disk.
"""

from __future__ import annotations

import importlib
import sys

from ourospec import __version__

VERBS = {
    "train": "train a preset, or go on with a run",
    "generate": "continue a text with a trained run, and show how long each token was thought about",
    "evaluate": "measure a run on held-out text: loss, bits per byte, depth, FLOPs",
    "calibrate": "find the threshold at which a run meets a budget of passes or of time",
    "sweep": "train a preset with several seeds: each one's loss, the median and the spread",
    "distill": "train a student that says with few passes what a run says with all",
    "presets": "list the presets",
    "plan": "say what a preset would cost here, without training it",
    "report": "write a run's report.html anew",
    "plot": "write the plots of a run's report as pictures",
    "compare": "compare models of spacings with laws and predictors that need no network",
    "claim": "put a claim about models to the test: arms, seeds, leak tests, statistics",
    "diagnose": "say what is wrong with a run, since when, and which command to try",
    "zeros": "compute zeros of the zeta function, or check a table of them",
    "doctor": "say what this machine has, what is fast on it and what is missing",
}
"""Verb -> one line of help. Each is a module of this package with `main(arguments) -> None`."""

USAGE = """usage: ouro VERB [options]

Train, measure and serve small language models that decide how long to think.

{verbs}

  ouro VERB --help     what a verb takes
  ouro --version       which version this is
  --debug              with any verb: show the traceback when something goes wrong

Start with:  ouro train adaptive_lm/tiny"""


def main(arguments: list[str] | None = None) -> int:
    """The console entry point; returns the exit code.

    0 success, 1 unexpected error, 2 configuration, 3 data, 4 resources, 5 diverged, 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return dispatch(arguments)
    except BaseException as error:
        from ourospec.cli.failures import report_failure

        if debug and not isinstance(error, SystemExit | BrokenPipeError):
            import traceback

            traceback.print_exc()
        return report_failure(error, arguments)


def dispatch(arguments: list[str]) -> int:
    """Run the verb that the arguments name.

    Raises:
        ConfigError: there is no such verb.
    """
    first, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if first == "help":
        first, rest = (rest[0], ["--help"]) if rest else ("--help", [])
    if first in ("-h", "--help"):
        width = max(map(len, VERBS))
        print(USAGE.format(verbs="\n".join(f"  {verb:{width}}  {what}" for verb, what in VERBS.items())))
    elif first in ("-V", "--version"):
        print(f"ouro {__version__}")
    elif first in VERBS:
        importlib.import_module(f"ourospec.cli.{first}").main(rest)
    else:
        from ourospec.cli.suggest import did_you_mean
        from ourospec.errors import ConfigError

        what = "option" if first.startswith("-") else "verb"
        raise ConfigError(f"There is no {what} {first!r}.", f"{did_you_mean(first, VERBS)}See: ouro --help")
    return 0
