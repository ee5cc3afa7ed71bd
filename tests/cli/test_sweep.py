"""`ouro sweep`: seeds one after another, resumable, of any family; and `ouro evaluate` of a run without text."""

import json
import statistics

import pytest

SMALL = (
    "--data.source",
    "wigner",
    "--data.source.count",
    "6000",
    "--train.steps",
    "4",
    "--train.eval-every",
    "2",
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return tmp_path_factory.mktemp("swept")


def sweep(ouro, folder, *more, seeds="7,42"):
    return ouro("sweep", "spacing_mdn/smoke", "--seeds", seeds, "--runs", str(folder), *SMALL, *more)


def test_a_sweep_prints_each_seed_and_what_they_say_together(ouro, swept):
    code, out, _ = sweep(ouro, swept, "--json", seeds="7,42,1337")
    assert code == 0
    found = json.loads(out)
    losses = [row["loss"] for row in found["seeds"]]
    assert [row["seed"] for row in found["seeds"]] == [7, 42, 1337] and len(set(losses)) == 3
    assert found["median"] == statistics.median(losses)
    assert (found["least"], found["greatest"]) == (min(losses), max(losses))
    assert found["references"].keys() == {"GUE-optimal"}
    assert (swept / "seeds.png").stat().st_size > 5_000
    for seed in (7, 42, 1337):
        assert json.loads((swept / f"seed-{seed}" / "recipe.json").read_text())["seed"] == seed


def test_what_is_done_is_not_done_again(ouro, swept):
    sweep(ouro, swept, "--quiet", seeds="7")
    before = (swept / "seed-7" / "events.jsonl").read_bytes()
    code, out, _ = sweep(ouro, swept, "--quiet")
    assert code == 0 and (swept / "seed-7" / "events.jsonl").read_bytes() == before
    assert out.split("\n")[1].split()[:2] == ["seed", "loss"]
    assert "median" in out and "GUE-optimal" in out


def test_text_is_swept_by_the_same_verb(ouro, tmp_path, corpus):
    options = ("--seeds", "1,2", "--runs", str(tmp_path), "--train.steps", "2", *corpus)
    code, out, _ = ouro("sweep", "dense_lm/smoke", *options, "--quiet")
    assert code == 0 and "median" in out and "GUE" not in out


@pytest.mark.parametrize("seeds", ["", "7,x", "7,7", "-1"])
def test_seeds_that_are_none(ouro, tmp_path, seeds):
    code, _, err = ouro("sweep", "spacing_mdn/smoke", f"--seeds={seeds}", "--runs", str(tmp_path))
    assert code == 2 and "--seeds" in err


def test_a_run_without_text_is_evaluated_and_refuses_what_is_about_text(ouro, swept):
    sweep(ouro, swept, "--quiet")
    run = str(swept / "seed-7")
    code, out, _ = ouro("evaluate", run)
    assert code == 0 and "nats per spacing" in out and "CRPS" in out and "held out: tail" in out
    code, out, _ = ouro("evaluate", run, "--json")
    figures = json.loads(out)
    assert code == 0 and figures["family"] == "spacing_mdn" and len(figures["pit_histogram"]) == 20
    assert not any(name.startswith("_") for name in figures)
    for verb in (
        ("evaluate", run, "--max-passes", "2"),
        ("generate", run),
        ("calibrate", run, "--budget", "1.5"),
    ):
        code, _, err = ouro(*verb)
        assert code == 2 and "does not read text" in err
