"""What an update costs: AdamW, and beside it Grokfast, Muon, both, and PyTorch's own Muon, on a model of 5 million.

Gradients are random; all ways take turns in every round. What is timed is processor time, on which other work on the
machine bears less than on the clock. Printed are ratios to AdamW's update, and the share of a whole training step (8
rows of 256, forward and backward included) that each update takes; for QK-clip, which looks at logits in the forward
pass, a whole step beside one without. Held to: PyTorch's Muon over the same matrices, joint ones whole, takes at least
0.8 of ours.

    python benchmarks/optimisers.py [--quick] [--json] [--threads N] [--rounds N]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from harness import finish, machine, spread

from ourospec.device import DevicePolicy, choose_device
from ourospec.families.dense_lm.model import DenseConfig, DenseLM
from ourospec.nn.attention import AttentionConfig
from ourospec.optim.config import GrokfastConfig, MuonConfig, OptimConfig, QKClipConfig
from ourospec.optim.groups import hidden_matrices
from ourospec.optim.optimiser import build_optimiser

VOCABULARY, ROWS, LENGTH = 512, 8, 256
WAYS = {
    "AdamW": OptimConfig(),
    "Grokfast, AdamW": OptimConfig(grokfast=GrokfastConfig()),
    "Muon": OptimConfig(muon=MuonConfig()),
    "Grokfast, Muon": OptimConfig(muon=MuonConfig(), grokfast=GrokfastConfig()),
}


def build(layers: int) -> DenseLM:
    """Width 256: 0.8 million parameters a layer."""
    torch.manual_seed(0)
    shape = DenseConfig(width=256, layers=layers, attention=AttentionConfig(heads=4), mlp_hidden=704)
    return DenseLM(shape, VOCABULARY, [b"x"] * VOCABULARY)


def update(layers: int, config: OptimConfig, policy: DevicePolicy) -> Callable[[], None]:
    """A call that updates a model of its own."""
    model = build(layers)
    optimiser = build_optimiser(model, config, policy)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return lambda: (optimiser.step(), None)[1]


def torch_muon(layers: int) -> Callable[[], None]:
    """PyTorch's Muon over the same matrices, joint ones whole, and AdamW over the rest."""
    model = build(layers)
    chosen = [matrix.parameter for matrix in hidden_matrices(model)]
    ids = {id(parameter) for parameter in chosen}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    parts = [torch.optim.Muon(chosen, lr=0.02), torch.optim.AdamW(rest, lr=1e-3, fused=True)]
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return lambda: [part.step() for part in parts].clear()


def whole_step(layers: int, config: OptimConfig, policy: DevicePolicy) -> Callable[[], None]:
    """Forward, backward and update."""
    model = build(layers)
    optimiser = build_optimiser(model, config, policy)
    tokens = torch.randint(VOCABULARY, (ROWS, LENGTH + 1))

    def call() -> None:
        with policy.autocast():
            states = model(tokens[:, :-1]).states
            loss = model.head.loss(states, tokens[:, 1:]) / tokens[:, 1:].numel()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return call


def seconds(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Times of each, all of them in turn in every round; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            found = seconds(call)
            if number:
                times[name].append(found)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two layers, few rounds: seconds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    policy = choose_device("cpu")
    layers, rounds = (2, 3) if options.quick else (6, options.rounds)
    updates = {name: update(layers, config, policy) for name, config in WAYS.items()}
    updates["PyTorch's Muon, AdamW"] = torch_muon(layers)
    limited = OptimConfig(qk_clip=QKClipConfig())
    steps = {f"step with {name}": whole_step(layers, config, policy) for name, config in WAYS.items()}
    steps["step with AdamW, QK-clip"] = whole_step(layers, limited, policy)
    times = measure(updates | steps, rounds)

    def ratios(name: str, base: str) -> list[float]:
        return [a / b for a, b in zip(times[name], times[base], strict=True)]

    figures = [
        spread(f"update: {name} / AdamW", ratios(name, "AdamW")) for name in updates if name != "AdamW"
    ]
    parity = ratios("PyTorch's Muon, AdamW", "Muon")
    figures.append(spread("update: PyTorch's Muon / ours", parity, at_least=0.8))
    for name in WAYS:
        figures.append(spread(f"share of a training step: {name}", ratios(name, f"step with {name}")))
    for name in steps:
        if name != "step with AdamW":
            figures.append(spread(f"{name} / with AdamW", ratios(name, "step with AdamW")))
    where = machine() | {"parameters": sum(p.numel() for p in build(layers).parameters())}
    return finish("optimisers: time of an update and of a step", figures, where, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
