"""What self-speculation is worth: drafts that stay, and tokens per second against plain decoding.

    python benchmarks/speculation.py --run RUN [--json] [--tokens N]
    python benchmarks/speculation.py --quick

Texts of a trained run from several prompts, greedy and drawn at the default sampling; at the depth as trained and with
all passes. Plain decoding and speculation take turns, text by text, in float32 on the CPU: by the model itself, and
by the compiled step, where another one with weights in 8 bits drafts. Without --run, or with --quick, a run of
adaptive_lm/smoke is trained for seconds: it shows that all of it works, and no more.

Greedy texts are equal; that they are is held to. What is faster is not: it depends on the depth and on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from typing import Any

import torch
from harness import Figure, finish, machine, spread

import ourospec
from ourospec.contracts import Effort, Stepper
from ourospec.device import DevicePolicy
from ourospec.serve.generation import Generation, generate
from ourospec.serve.receipt import Machinery
from ourospec.serve.sampling import GREEDY, Sampling
from ourospec.serve.speculation import Speculation, Speculative

PROMPTS = ("def ", "import ", "class ", "# ", "for ")
FLOAT32 = DevicePolicy(torch.device("cpu"), None, False)
SAMPLINGS = {"greedy": GREEDY, "drawn": Sampling()}


class Kept:
    """Opens a speculative source, and keeps it to be asked."""

    source: Speculative

    def __init__(self, drafter: Stepper | None) -> None:
        self.drafter = drafter

    def __call__(self, *arguments: Any) -> Speculative:
        self.source = Speculative(*arguments, drafter=self.drafter)
        return self.source


def time_of(
    model: Any, prompt: str, seed: int, settings: dict[str, Any], machinery: Machinery
) -> tuple[float, Generation]:
    """Seconds a token, the prompt left out, and the text."""
    made = generate(
        model.model, model.tokenizer, prompt, policy=FLOAT32, seed=seed, machinery=machinery, **settings
    )
    return made.receipt.seconds / max(1, len(made.tokens)), made


def compare(model: Any, name: str, settings: dict[str, Any], steppers: tuple[Any, Any]) -> list[Figure]:
    """One depth, one kind of drawing: turn by turn over the prompts."""
    (stepper, drafter), faster, equal, receipts = steppers, [], [], []
    time_of(model, PROMPTS[0], 0, settings, Machinery(stepper))
    for seed, prompt in enumerate(PROMPTS):
        kept = Kept(drafter)
        plain, text = time_of(model, prompt, seed, settings, Machinery(stepper))
        drafted, other = time_of(model, prompt, seed, settings, Machinery(stepper, open_source=kept))
        faster.append(plain / drafted)
        equal.append(float(text == other))
        receipts.append(kept.source.receipt)
    total = Speculation(*(sum(column) for column in zip(*receipts, strict=True)))
    figures = [spread(f"{name}: tokens/s against plain", faster)]
    if total.drafted:
        figures += [
            spread(f"{name}: share of drafts that stay", [total.acceptance]),
            spread(f"{name}: tokens a draft", [total.mean_draft]),
            spread(f"{name}: tokens a verification", [total.tokens_per_verification]),
        ]
    if settings["sampling"] is GREEDY:
        figures.append(spread(f"{name}: equal texts", [min(equal)], at_least=1.0))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", help="a trained run of adaptive_lm")
    parser.add_argument("--tokens", type=int, default=120, help="of each text")
    parser.add_argument("--quick", action="store_true", help="seconds, on a run trained for it")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        run = asked.run
        if run is None or asked.quick:
            run = folder
            ourospec.train("adaptive_lm/smoke", run)
        model = ourospec.load(run, device="cpu")
        passes = model.model.depth.max_passes
        depths = {"as trained": model._effort(None), f"{passes} passes": Effort(forced_passes=passes)}
        compiled = model.model.stepper("float32"), model.model.stepper("int8")
        steppers = {"model": (None, None), "compiled": compiled}
        for depth, effort in depths.items():
            for drawing, sampling in SAMPLINGS.items():
                settings = {
                    "effort": effort,
                    "sampling": sampling,
                    "max_new_tokens": 20 if asked.quick else asked.tokens,
                }
                for by, pair in steppers.items():
                    figures += compare(model, f"{depth}, {drawing}, {by}", settings, pair)
    return finish("speculation", figures, machine(), as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
