"""Does a device learn what the CPU learns? A few training steps on both, side by side.

Some devices compute wrongly without a word (MPS has had such faults: pytorch issues 109457 and 137964). A wrong
kernel shows in the loss at once or, when it is a backward one, in the gradient and in the loss after the update.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from ourospec.contracts import Batch, Clock, Effort, Objective, Output
from ourospec.device import DeviceName, DevicePolicy, choose_device
from ourospec.nn.attention import AttentionConfig, Visibility
from ourospec.nn.depth import AdaptiveLayer, DepthConfig
from ourospec.nn.head import Head
from ourospec.nn.init import initialise
from ourospec.nn.next_token import NextToken

# Relative differences that arithmetic explains. bfloat16 on a CPU comes to 2e-2 to 6e-2 on the small model below;
# TF32, where a user allowed it in place of float32, has an eighth of that error, and float32 itself none to
# speak of. A wrong kernel is off by far more.
TOLERANCES = {"float32": 1e-2, "bfloat16": 1e-1}
# A gradient below this share of the whole may be the small remainder of large terms: its own size says nothing.
SMALL_SHARE = 1e-3


@dataclass(frozen=True)
class ParityRow:
    """One training step on a device and on the CPU, both from the same weights at step 0."""

    device: str
    precision: str
    step: int
    loss: float
    """Nats per target."""
    cpu_loss: float
    grad_norm: float
    """Euclidean norm of the whole gradient."""
    cpu_grad_norm: float
    loss_difference: float
    """Relative to the CPU's loss; NaN where a number is not finite."""
    grad_difference: float
    """Largest over parameters of ‖g − g_cpu‖ / ‖g_cpu‖: equal norms alone would let a wrong sign pass. The
    denominator is at least a thousandth of the whole gradient's norm."""

    @property
    def worst(self) -> float:
        """The larger of both differences, infinite where one is NaN."""
        pair = (self.loss_difference, self.grad_difference)
        return math.inf if any(map(math.isnan, pair)) else max(pair)

    @property
    def agrees(self) -> bool:
        """Whether the differences are within what the precision explains."""
        return self.worst <= TOLERANCES[self.precision]


@dataclass(frozen=True)
class _Trace:
    loss: float
    gradients: dict[str, Tensor]
    """By parameter, float64 on the CPU."""

    @property
    def norm(self) -> float:
        return math.sqrt(sum(float(g.square().sum()) for g in self.gradients.values()))


def device_parity(
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Batch],
    policies: Sequence[DevicePolicy],
    *,
    rate: float = 0.05,
) -> list[ParityRow]:
    """Train copies of a model on each device and on the CPU in float32; one row per device and step.

    Plain gradient descent: unlike Adam it does not blow a rounding error in a tiny gradient up to full size.
    The gradient is brought to length `rate` where it is longer, so that both stay near each other.

    Args:
        model: left as it is.
        batches: one micro-batch per step.
        policies: the devices to compare, each in its own precision.
    """
    reference = _train(model, objective, batches, choose_device("cpu", "float32"), rate)
    rows = []
    for policy in policies:
        traces = _train(model, objective, batches, policy, rate)
        precision = policy.describe()["precision"]
        rows += [
            _compare(str(policy.device), precision, step, *pair)
            for step, pair in enumerate(zip(traces, reference, strict=True))
        ]
    return rows


def _train(
    model: nn.Module, objective: Objective, batches: Sequence[Batch], policy: DevicePolicy, rate: float
) -> list[_Trace]:
    model, objective = copy.deepcopy(model).to(policy.device).train(), copy.deepcopy(objective)
    traces, carry = [], None
    for index, batch in enumerate(batches):
        model.zero_grad()
        with policy.autocast():
            step = objective(model, batch.to(policy.device), carry, Clock(index, len(batches)))
        loss = step.loss_sum / step.num_targets
        loss.backward()
        carry = step.carry
        named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        traces.append(_Trace(float(loss.detach()), {name: g.cpu().double() for name, g in named.items()}))
        scale = rate / max(traces[-1].norm, rate)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= scale * parameter.grad
    return traces


def _compare(device: str, precision: str, step: int, here: _Trace, cpu: _Trace) -> ParityRow:
    return ParityRow(
        device=device,
        precision=precision,
        step=step,
        loss=here.loss,
        cpu_loss=cpu.loss,
        grad_norm=here.norm,
        cpu_grad_norm=cpu.norm,
        loss_difference=abs(here.loss - cpu.loss) / abs(cpu.loss),
        grad_difference=_largest_difference(here, cpu),
    )


def _largest_difference(here: _Trace, cpu: _Trace) -> float:
    """NaN where a parameter has a gradient on one device only, or one that is not finite."""
    if here.gradients.keys() != cpu.gradients.keys():
        return math.nan
    small = SMALL_SHARE * cpu.norm
    differences = [
        torch.linalg.vector_norm(here.gradients[name] - g) / torch.linalg.vector_norm(g).clamp(min=small)
        for name, g in cpu.gradients.items()
    ]
    # torch's maximum, unlike Python's, is NaN as soon as one entry is.
    return float(torch.stack(differences).max())


def compare_with_cpu(kind: DeviceName, steps: int = 4) -> dict[str, Any]:
    """Compare a device with the CPU on a small adaptive model: in float32, and as training would use it.

    Returns:
        {"agrees", "explanation", "rows"}: a verdict, a sentence, and one entry per precision and step with
        the fields of ParityRow.

    Raises:
        ResourceError: the device is not present.
    """
    asked = [choose_device(kind, "float32"), choose_device(kind)]
    policies = list({policy.describe()["precision"]: policy for policy in asked}.values())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _SmallModel()
        batches = [_SmallBatch.draw() for _ in range(steps)]
    rows = device_parity(model, _AllPasses(), batches, policies)
    return {
        "agrees": all(row.agrees for row in rows),
        "explanation": explain(rows),
        "rows": [asdict(row) for row in rows],
    }


def explain(rows: Sequence[ParityRow]) -> str:
    """The largest difference in each precision, in one sentence."""
    parts = []
    for precision in dict.fromkeys(row.precision for row in rows):
        worst = max(row.worst for row in rows if row.precision == precision)
        differ = f"differ by at most {worst:.1e} (allowed {TOLERANCES[precision]:.0e})"
        parts.append(f"in {precision} loss and gradients {differ if worst else 'are equal to the last bit'}")
    steps = len({row.step for row in rows})
    return f"over {steps} training steps, {'; '.join(parts)}"


class _SmallModel(nn.Module):
    """Two adaptive layers between a table and a head: what every kernel of training passes through."""

    def __init__(self, vocab_size: int = 96, width: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, width)
        depth = DepthConfig(max_passes=2, scales=(1.0, 0.7), gate_bias=0.0)
        attention = AttentionConfig(heads=4, kv_heads=2)
        self.layers = nn.ModuleList(AdaptiveLayer(width, attention, 128, "swiglu", depth) for _ in range(2))
        self.head = Head(width, vocab_size)
        initialise(self, residual_branches=8)

    def forward(self, tokens: Tensor, documents: Tensor | None, effort: Effort | None) -> Output:
        visibility = Visibility(tokens.shape[1], tokens.device, documents=documents)
        x, passes = self.table(tokens), []
        for layer in self.layers:
            x, trace, _ = layer(x, visibility, effort or Effort())
            passes.append(trace.passes)
        return Output(self.head.norm(x), torch.stack(passes))


class _AllPasses(NextToken):
    """Lets nobody leave, with the gates at work: at a real threshold a token may leave on one device only."""

    def effort(self, clock: Clock) -> Effort | None:
        del clock
        return Effort(threshold=0.0)


@dataclass(frozen=True)
class _SmallBatch:
    tokens: Tensor
    targets: Tensor
    documents: Tensor | None
    num_targets: int
    num_bytes: int

    @classmethod
    def draw(cls, rows: int = 4, length: int = 48, vocab_size: int = 96) -> _SmallBatch:
        """Random tokens, two documents a row."""
        drawn = torch.randint(vocab_size, (rows, length + 1))
        documents = (torch.arange(length) >= length // 3).long().expand(rows, length)
        return cls(drawn[:, :-1], drawn[:, 1:], documents, rows * length, rows * length)

    def to(self, device: torch.device) -> Self:
        documents = self.documents.to(device) if self.documents is not None else None
        return type(self)(
            self.tokens.to(device), self.targets.to(device), documents, self.num_targets, self.num_bytes
        )
