"""A model that thinks about puzzles, by the verbs: what its steps, its halting and its memory are worth."""

import json
import re

import pytest


@pytest.fixture(scope="module")
def thinker(tmp_path_factory, short_puzzles):
    """A short run of a model with halting head and memory, on puzzles."""
    from ourospec import cli

    run = tmp_path_factory.mktemp("runs") / "thinker"
    assert cli.main(["train", "recursive_lm/smoke", "--run", str(run), *short_puzzles, "--quiet"]) == 0
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


def test_generate_answers_a_puzzle_pass_by_pass(thinker, ouro):
    from ourospec import api
    from ourospec.contracts import Effort
    from ourospec.serve.sampling import GREEDY

    code, out, _ = ouro("generate", thinker, "--puzzle", "2")
    assert code == 0
    (answer,) = json.loads(ouro("generate", thinker, "--puzzle", "2", "--json")[1])["answers"]
    assert f"question       {answer['question']}\n" in out
    assert f"right answer   {answer['right_answer']}‹end›\n" in out
    attempts = answer["attempts"]
    assert [one["forced_passes"] for one in attempts] == [1, 2, 3, None]
    model = api.load(thinker)
    for one, name in zip(attempts, ("1 pass ", "2 passes", "3 passes", "as it decides"), strict=True):
        forced = one["forced_passes"]
        made = model.generate(
            answer["question"],
            max_new_tokens=len(answer["tokens"]),
            sampling=GREEDY,
            effort=Effort(forced_passes=forced) if forced else None,
        )
        assert one["text"] == made.text
        assert one["right"] == (one["tokens"] == answer["tokens"])
        mark = "‹end›" if made.finish == "end" else ""
        assert re.search(rf"^  {name} +{re.escape(made.text + mark)}  (right|wrong)", out, re.M)
    steps = " ".join(f"{passes:.3g}" for passes in attempts[-1]["passes"])
    assert f"passes a token: {steps}" in out


def test_generate_says_which_puzzles_there_are(thinker, trained, ouro):
    code, _, err = ouro("generate", thinker, "--puzzle", "41")
    assert code == 2 and "there are 40" in err and "1 to 40" in err
    assert ouro("generate", thinker, "--puzzle", "40")[0] == 0
    code, _, err = ouro("generate", trained.run, "--puzzle", "1")
    assert code == 2 and "plain text" in err
    for more in (("--prompt", "x"), ("--temperature", "0"), ("--budget", "1.5"), ("--speculate",)):
        code, _, err = ouro("generate", thinker, "--puzzle", "1", *more)
        assert code == 2 and f"{more[0]} means nothing beside --puzzle" in err
    # Best weights may be asked; this run keeps none, which is another answer than that they mean nothing here.
    code, _, err = ouro("generate", thinker, "--puzzle", "1", "--checkpoint", "best")
    assert code != 0 and "means nothing" not in err and "keep-best" in err
    assert ouro("generate", thinker, "--puzzle", "1", "--max-passes", "2")[0] == 0


def test_generate_continues_a_prompt_with_each_number_of_passes(trained, ouro):
    options = ("generate", trained.run, "--prompt", "def ", "--max-new-tokens", "8", "--temperature", "0")
    code, out, err = ouro(*options, "--each-pass")
    assert code == 0 and err.count("passes per layer") == 4
    texts = json.loads(ouro(*options, "--each-pass", "--json")[1])["each_pass"]
    assert [one["forced_passes"] for one in texts] == [1, 2, 3, None]
    assert {count for one in texts[:1] for layers in one["passes"] for count in layers} == {1}
    assert {count for one in texts[2:3] for layers in one["passes"] for count in layers} == {3}
    alone = json.loads(ouro(*options, "--json")[1])
    assert texts[-1]["text"] == alone["text"] and texts[-1]["passes"] == alone["passes"]
    heads = ("1 pass", "2 passes", "3 passes", "as it decides")
    for one, head in zip(texts, heads, strict=True):
        assert f"--- {head}\ndef {one['text']}\n" in out
    code, _, err = ouro(*options, "--each-pass", "--max-passes", "1")
    assert code == 2 and "--max-passes means nothing beside --each-pass" in err
