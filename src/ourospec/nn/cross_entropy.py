"""Cross-entropy and divergence of linear heads, in chunks: the logits of a large vocabulary are never held at once."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Elements of logits held at a time: 32 Mi in float32 are 128 MiB, and larger matrix products gain no speed.
CHUNK_ELEMENTS = 1 << 25


def linear_cross_entropy(
    states: Float[Tensor, "N D"], weight: Float[Tensor, "V D"], targets: Int[Tensor, " N"]
) -> Float[Tensor, ""]:
    """Σ_n −ln softmax(weight · states_n)[targets_n] in nats; a target below 0 is left out.

    Where gradients are wanted they are taken chunk by chunk in the forward pass, while the chunk's logits
    exist (idea: Wijmans et al. 2024, arXiv 2411.09009; here without sorting or filtering).
    """
    if torch.is_grad_enabled() and (states.requires_grad or weight.requires_grad):
        return _LinearCrossEntropy.apply(states, weight, targets)  # pyright: ignore[reportReturnType]
    return token_nll(states, weight, targets).sum()


def linear_cross_entropy_by_row(
    states: Float[Tensor, "N D"], weight: Float[Tensor, "V D"], targets: Int[Tensor, " N"]
) -> tuple[Float[Tensor, ""], Float[Tensor, " N"], Bool[Tensor, " N"]]:
    """As linear_cross_entropy; and, without gradients, each row's share of it and whether its likeliest is right."""
    return _LinearCrossEntropy.apply(states, weight, targets, True)  # pyright: ignore[reportReturnType]


@torch.no_grad()
def token_nll(
    states: Float[Tensor, "N D"], weight: Float[Tensor, "V D"], targets: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """−ln p(target) of each row in nats, 0 where the target is below 0; for scoring, without gradients."""
    return token_nll_and_entropy(states, weight, targets, with_entropy=False)[0]


@torch.no_grad()
def token_nll_and_entropy(
    states: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, " N"],
    with_entropy: bool = True,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """As token_nll, and the entropy of p in nats, 0 where it is not asked for."""
    states, weight = _as_computed(states, weight)
    nll = torch.zeros(
        len(targets), device=states.device, dtype=torch.promote_types(states.dtype, torch.float32)
    )
    entropy = torch.zeros_like(nll)
    for rows in _chunks(states.shape[0], weight.shape[0]):
        log_p = _log_probabilities(states[rows], weight)
        nll[rows] = -log_p.gather(1, targets[rows, None].clamp(min=0))[:, 0]
        if with_entropy:
            entropy[rows] = -(log_p.exp() * log_p).sum(-1)
    return nll.masked_fill(targets < 0, 0.0), entropy


def linear_divergence(
    states: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    wanted_states: Float[Tensor, "N E"],
    wanted_weight: Float[Tensor, "V E"],
) -> Float[Tensor, ""]:
    """Σ_n KL(p_n ‖ q_n) in nats, p = softmax(wanted_weight · wanted_states), q = softmax(weight · states).

    Gradients, taken as in `linear_cross_entropy`, go to q alone.
    """
    if torch.is_grad_enabled() and (states.requires_grad or weight.requires_grad):
        return _LinearDivergence.apply(states, weight, wanted_states, wanted_weight)  # pyright: ignore[reportReturnType]
    return token_divergence(states, weight, wanted_states, wanted_weight)[0].sum()


@torch.no_grad()
def token_divergence(
    states: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    wanted_states: Float[Tensor, "N E"],
    wanted_weight: Float[Tensor, "V E"],
) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
    """KL(p ‖ q) of each row in nats, see `linear_divergence`; and whether the likeliest of p is another than that of q.

    Without gradients.
    """
    (x, w), (y, v) = _as_computed(states, weight), _as_computed(wanted_states, wanted_weight)
    divergence = torch.zeros(len(x), device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
    differ = torch.zeros(len(x), device=x.device, dtype=torch.bool)
    for rows in _chunks(x.shape[0], w.shape[0]):
        log_q, log_p = _log_probabilities(x[rows], w), _log_probabilities(y[rows], v)
        divergence[rows] = (log_p.exp() * (log_p - log_q)).sum(-1)
        differ[rows] = log_p.argmax(-1) != log_q.argmax(-1)
    return divergence, differ


class _TakenForward(torch.autograd.Function):
    """A loss of states and weight, its first inputs, whose forward pass has taken their gradients already."""

    @staticmethod
    def backward(ctx, *grads: Tensor):
        grad_states, grad_weight = ctx.saved_tensors
        scale, others = grads[0], len(ctx.needs_input_grad) - 2
        return (grad_states * scale).to(ctx.states_dtype), grad_weight * scale, *[None] * others


class _LinearCrossEntropy(_TakenForward):
    @staticmethod
    def forward(ctx, states: Tensor, weight: Tensor, targets: Tensor, by_row: bool = False):
        x, w = _as_computed(states, weight)
        kept = targets >= 0
        nll = torch.zeros(len(x), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        right = torch.zeros_like(kept)
        total = torch.zeros((), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        grad_states = torch.empty_like(x)
        grad_weight = torch.zeros_like(weight)
        for rows in _chunks(x.shape[0], w.shape[0]):
            log_p = _log_probabilities(x[rows], w)
            keep, target = kept[rows, None], targets[rows, None].clamp(min=0)
            chosen = log_p.gather(1, target) * keep
            total -= chosen.sum()
            if by_row:
                nll[rows] = -chosen[:, 0]
                right[rows] = (log_p.argmax(1) == target[:, 0]) & keep[:, 0]
            # d nll / d logits = softmax − one-hot, in the storage of log_p.
            grad = log_p.exp_()
            grad.scatter_add_(1, target, torch.full_like(target, -1, dtype=grad.dtype))
            grad = grad.mul_(keep).to(x.dtype) if not bool(keep.all()) else grad.to(x.dtype)
            grad_states[rows] = grad @ w
            grad_weight += grad.t() @ x[rows]
        ctx.save_for_backward(grad_states, grad_weight)
        ctx.states_dtype = states.dtype
        if not by_row:
            return total
        ctx.mark_non_differentiable(nll, right)
        return total, nll, right


class _LinearDivergence(_TakenForward):
    @staticmethod
    def forward(ctx, states: Tensor, weight: Tensor, wanted_states: Tensor, wanted_weight: Tensor) -> Tensor:
        (x, w), (y, v) = _as_computed(states, weight), _as_computed(wanted_states, wanted_weight)
        total = torch.zeros((), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        grad_states = torch.empty_like(x)
        grad_weight = torch.zeros_like(weight)
        for rows in _chunks(x.shape[0], w.shape[0]):
            log_q, log_p = _log_probabilities(x[rows], w), _log_probabilities(y[rows], v)
            p = log_p.exp()
            total += (p * (log_p - log_q)).sum()
            # d KL(p ‖ q) / d logits of q = q − p.
            grad = (log_q.exp_() - p).to(x.dtype)
            grad_states[rows] = grad @ w
            grad_weight += grad.t() @ x[rows]
        ctx.save_for_backward(grad_states, grad_weight)
        ctx.states_dtype = states.dtype
        return total


def _as_computed(states: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the type in which the product is to be taken: autocast's where it is on."""
    kind = states.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
    return states.detach().to(dtype), weight.detach().to(dtype)


def _chunks(rows: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return (slice(start, start + size) for start in range(0, rows, size))


def _log_probabilities(states: Tensor, weight: Tensor) -> Tensor:
    """[n, V] in at least float32; the normaliser of a large vocabulary needs it."""
    wide = torch.promote_types(states.dtype, torch.float32)
    with torch.autocast(states.device.type, enabled=False):
        return torch.log_softmax(states @ weight.t(), dim=-1, dtype=wide)
