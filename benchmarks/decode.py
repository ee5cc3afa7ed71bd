"""Tokens per second of decoding: adaptive at a calibrated budget and at full depth, dense_lm, and Hugging Face.

    python benchmarks/decode.py [--run RUN] [--quick] [--json] [--turns N] [--threads N]

All contenders decode greedily in this process, each as its users would call it, and take turns within a round: a slow
spell of the machine meets them all, and the ratios are taken round by round. They are

    adaptive        the run, at the threshold of fewest passes whose held-out loss is within 0.5% of the least that any
                    threshold has, and so of full depth
    full depth      the same, every token all passes
    one pass        the same, every token one pass
    dense_lm        its shape and so many layers that it has about as many parameters
    Hugging Face    transformers' `generate` on a GPT-2 of the run's shape and vocabulary, static shapes of its own

with batches of 1, 8 and 32 texts, weights in float32, and at batch 1 also in 8 bits. Random weights decode as fast as
trained ones where depth is set, so dense_lm and GPT-2 are not trained; the end token does not end a text. What is timed
is what follows the first token; of Hugging Face's `generate`, the time of a call for that token alone is taken off.

Without a trained run, or with --quick, the model is `adaptive_lm/small` with random weights, its vocabulary 4,096 and
its threshold set for about 1.3 passes: it says what 1.3 passes cost, and nothing about what they are worth.

Held to, at batch 1: adaptive at least 1.4 times as fast as full depth; at least 1.5 times Hugging Face in float32, and
3 times with weights in 8 bits. Exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness import Figure, finish, machine, spread

PROMPT = 32
"""Tokens of every prompt."""
LOSS = 1.005
"""Held-out loss that adaptive depth may have, in units of the least at any threshold."""
PERCENT = (0, 10, 30, 50, 60, 70, 80, 85, 90, 95, 99)
"""Thresholds that are tried."""
PASSES = 1.3
"""Mean passes that random weights are set to."""
HELDOUT = 40_000
"""Held-out tokens scored for each threshold."""


class Subject(NamedTuple):
    """The model that is measured, and the threshold that it is measured at."""

    model: Any
    vocab_size: int
    threshold: float
    about: str


class Taken(NamedTuple):
    """What the tokens after the first took: that one is read with the prompt."""

    seconds: float
    passes: float | None
    """Mean, where there are any."""


@dataclass
class Contender:
    """One way of decoding."""

    name: str
    decode: Callable[[Sequence[list[int]], int], Taken]
    """Makes so many tokens for every prompt, given as rows of tokens."""


def trained_subject(run: str) -> Subject:
    """The run, and the least depth whose held-out loss is near enough to the best."""
    import ourospec
    from ourospec.contracts import Effort

    loaded = ourospec.load(run, device="cpu")

    def score(threshold: float) -> tuple[float, float]:
        found = loaded.evaluate(most_tokens=HELDOUT, effort=Effort(threshold=threshold))
        return float(found["loss"]), float(found["mean_passes"])

    found = {percent / 100: score(percent / 100) for percent in PERCENT}
    deepest, least = found[0.0][0], min(loss for loss, _ in found.values())
    best = max(threshold for threshold, (loss, _) in found.items() if loss <= LOSS * least)
    loss, passes = found[best]
    about = f"{run}: threshold {best:g}, {passes:.3f} passes, loss {loss:.4f}"
    about += f"; least {least:.4f}, full depth {deepest:.4f}"
    return Subject(loaded.model, loaded.tokenizer.vocab_size, best, about)


def random_subject() -> Subject:
    """adaptive_lm/small with random weights, and the threshold that gives it about so many passes."""
    import torch

    from ourospec import api
    from ourospec.contracts import Effort
    from ourospec.families.adaptive_lm.model import AdaptiveLM

    recipe: Any = api.presets()["adaptive_lm/small"]()
    torch.manual_seed(0)
    model = AdaptiveLM(recipe.model, 4_096, [b"x"] * 4_096).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("gate.output.weight", "gate.see_state.weight")):
                torch.nn.init.normal_(parameter, std=0.05)
    tokens = torch.randint(4_096, (4, 256), generator=torch.Generator().manual_seed(0))
    low, high = 0.0, 1.0
    with torch.no_grad():
        for _ in range(14):
            middle = (low + high) / 2
            passes = float(model(tokens, effort=Effort(threshold=middle)).passes.double().mean())
            low, high = (middle, high) if passes > PASSES else (low, middle)
    return Subject(model, 4_096, high, f"random weights, threshold {high:.3f} for about {PASSES} passes")


def plain_twin(subject: Any, vocab_size: int) -> Any:
    """dense_lm of the subject's shape, with so many layers that it has about as many parameters."""
    import torch

    from ourospec import api
    from ourospec.families.dense_lm.model import DenseLM

    recipe: Any = api.presets()["dense_lm/small"]()
    attention = subject.layers[0].attention
    wanted = sum(parameter.numel() for parameter in subject.parameters())
    made: list[Any] = []
    for layers in range(1, 2 * len(subject.layers) + 1):
        config = recipe.model.model_copy(
            update={
                "width": subject.head.rows.weight.shape[1],
                "layers": layers,
                "attention": recipe.model.attention.model_copy(update={"heads": attention.heads}),
                "max_length": subject.max_length,
            }
        )
        torch.manual_seed(0)
        made.append(DenseLM(config, vocab_size, [b"x"] * vocab_size).eval())
    return min(made, key=lambda model: abs(sum(p.numel() for p in model.parameters()) - wanted))


def ours(name: str, model: Any, vocab_size: int, effort: Any, weights: str = "float32") -> Contender:
    """Decoding as `generate_batch` does it, without the making of text."""
    import statistics

    import torch

    from ourospec.device import choose_device
    from ourospec.serve.batch import Batch
    from ourospec.serve.sampling import GREEDY
    from ourospec.serve.session import DecodingSession
    from ourospec.serve.source import Draw

    policy, stepper = choose_device("cpu", "float32"), model.stepper(weights)
    draw = Draw(GREEDY, torch.Generator(), vocab_size, 1)

    def decode(prompts: Sequence[list[int]], tokens: int) -> Taken:
        sessions = [DecodingSession(model, policy, PROMPT + tokens, effort, stepper) for _ in prompts]
        chosen = [
            draw.choose(session.feed(prompt)) for session, prompt in zip(sessions, prompts, strict=True)
        ]
        start = time.perf_counter()
        batch, passes = Batch(sessions), []
        for _ in range(tokens - 1):
            readings = batch.feed([one.token for one in chosen], effort)
            chosen = [draw.choose(reading) for reading in readings]
            passes += [statistics.fmean(one.passes) for one in chosen]
        return Taken(time.perf_counter() - start, statistics.fmean(passes))

    return Contender(name, decode)


def hugging_face(subject: Any, vocab_size: int) -> Contender:
    """`generate` of transformers, greedy, with its cache, on a GPT-2 of the subject's shape with random weights."""
    import torch
    import transformers

    width = subject.head.rows.weight.shape[1]
    config = transformers.GPT2Config(
        vocab_size=vocab_size,
        bos_token_id=0,
        eos_token_id=0,
        n_positions=subject.max_length,
        n_embd=width,
        n_layer=len(subject.layers),
        n_head=subject.layers[0].attention.heads,
    )
    torch.manual_seed(0)
    model: Any = transformers.GPT2LMHeadModel(config)
    model.eval()
    settings = transformers.GenerationConfig(
        do_sample=False, use_cache=True, pad_token_id=0, eos_token_id=None
    )

    def seconds(rows: Any, tokens: int) -> float:
        settings.max_new_tokens = settings.min_new_tokens = tokens
        start = time.perf_counter()
        with torch.no_grad():
            made = model.generate(rows, attention_mask=torch.ones_like(rows), generation_config=settings)
        assert made.shape[1] == rows.shape[1] + tokens
        return time.perf_counter() - start

    def decode(prompts: Sequence[list[int]], tokens: int) -> Taken:
        rows = torch.tensor(list(prompts))
        return Taken(seconds(rows, tokens) - seconds(rows, 1), None)

    return Contender("Hugging Face GPT-2", decode)


def measure(subject: Subject, batch: int, tokens: int, turns: int) -> list[Figure]:
    """Every contender at one batch size, in turns."""
    import torch

    from ourospec.contracts import Effort

    model, vocabulary = subject.model, subject.vocab_size
    budget = Effort(threshold=subject.threshold)
    contenders = [
        ours("adaptive", model, vocabulary, budget),
        ours("full depth", model, vocabulary, Effort(threshold=0.0)),
        ours("one pass", model, vocabulary, Effort(forced_passes=1)),
        ours("dense_lm", plain_twin(model, vocabulary), vocabulary, None),
        hugging_face(model, vocabulary),
    ]
    if batch == 1:
        contenders.append(ours("adaptive int8", model, vocabulary, budget, "int8"))
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(vocabulary, (batch, PROMPT), generator=generator).tolist()
    pace: dict[str, list[float]] = {one.name: [] for one in contenders}
    passes: dict[str, float | None] = {}
    for turn in range(turns + 1):
        # The first turn warms up; who begins changes.
        order = contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]
        for one in order:
            taken = one.decode(prompts, tokens)
            passes[one.name] = taken.passes
            if turn:
                pace[one.name].append(batch * (tokens - 1) / taken.seconds)
    figures = []
    for name, speeds in pace.items():
        depth = passes[name]
        told = "" if depth is None or name == "dense_lm" else f", {depth:.2f} passes"
        figures.append(spread(f"batch {batch}: {name}, tokens/s{told}", speeds))
    return figures + ratios(pace, batch)


def ratios(pace: dict[str, list[float]], batch: int) -> list[Figure]:
    """Turn by turn."""
    bounds = {("adaptive", "full depth"): 1.4, ("adaptive", "Hugging Face GPT-2"): 1.5}
    bounds[("adaptive int8", "Hugging Face GPT-2")] = 3.0
    bounds[("adaptive", "dense_lm")] = 0.0
    found = []
    for (one, other), least in bounds.items():
        if one in pace:
            values = [a / b for a, b in zip(pace[one], pace[other], strict=True)]
            held = least if batch == 1 and least else None
            found.append(spread(f"batch {batch}: {one} / {other}", values, at_least=held))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="runs/adaptive_lm-small", help="a trained run")
    parser.add_argument("--quick", action="store_true", help="random weights, few and short turns")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    untrained = options.quick or not Path(options.run).is_dir()
    subject = random_subject() if untrained else trained_subject(options.run)
    torch.set_num_threads(options.threads)
    turns, tokens = (3, 48) if options.quick else (options.turns, 128)
    figures: list[Figure] = []
    for batch in (1, 8, 32):
        figures += measure(subject, batch, tokens, turns)
    return finish("decode", figures, machine() | {"model": subject.about}, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
