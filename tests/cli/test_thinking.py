"""A model that thinks about puzzles, by the verbs: what its steps, its halting and its memory are worth."""

import json
import re

import pytest

PARTS = [{"task": {"kind": "pointer"}}, {"task": {"kind": "copy", "least": 1, "most": 6}}]
SETTINGS = (
    "--train.steps",
    "12",
    "--train.sample-every",
    "0",
    "--train.window",
    "48",
    "--data.tokenizer",
    "byte",
    "--data.source",
    "puzzle_mixture",
    "--data.source.parts",
    json.dumps(PARTS),
    "--data.source.heldout-examples",
    "20",
    "--quiet",
)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    """A short run of a model with halting head and memory, on puzzles."""
    from ourospec import cli

    run = tmp_path_factory.mktemp("runs") / "thinker"
    assert cli.main(["train", "recursive_lm/smoke", "--run", str(run), *SETTINGS]) == 0
    return str(run)


def test_evaluate_prints_steps_halting_and_memory(thinker, ouro):
    code, out, _ = ouro("evaluate", thinker)
    assert code == 0
    figures = json.loads(ouro("evaluate", thinker, "--json")[1])
    found = figures["thinking"]
    assert [line["passes"] for line in found["each_pass"]] == [1, 2, 3]
    assert [line["name"] for line in found["ablations"]] == ["memory off", "memory shuffled"]
    assert found["as_used"]["loss"] == pytest.approx(figures["loss"]), (
        "the sample is all that is held out here"
    )
    assert found["as_used"]["exact_match"] == figures["exact_match"]
    for line in found["ablations"]:
        more = f"{line['loss_difference'] + 0.0:.4f} ± {line['loss_difference_se']:.4f}"
        assert re.search(rf"^{line['name']} .* {re.escape(more)} ", out, re.M)
    assert f"calibration error {found['halting']['calibration_error']:.3f}" in out
    assert f"g {found['memory_gate']['mean']:.3f} ±" in out
    assert sum(one["decisions"] for one in found["halting"]["bins"]) == 2 * found["tokens"]
