"""The compiled twin of a model for decoding: a contracts.Stepper.

Letters: B rows, D width, V vocabulary, L layers, G key-value heads, d width of a head.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ourospec.contracts import Effort, Output
from ourospec.nn.cache import Cache, KeyValues
from ourospec.nn.reading import look
from ourospec.nn.step import kernels
from ourospec.nn.step.pack import Halting, Pack

# On one thread the compiled products beat torch's by about 1.7 at 32 rows and at 64 (benchmarks/step.py); but torch
# can add threads, which a step does not.
ROWS_AT_MOST = 32
POSITIONS_AT_MOST = 9
"""Of one text in one call: up to so many, the model's own forward pass took longer at both sizes that were tried."""


class CompiledStepper:
    """One position of each row a call, or a few of a single row, in machine code, on the model's own cache.

    It holds a copy of the weights as they were. Keys and values are kept in float32: a cache that the model has
    opened in another type is converted when it is first met.

    Args:
        embedding: from token ids [B, T] to vectors; asked once for each token, its answers are kept.
        baton: [D], σ(λ) of the share of the embedding before, or None.
        max_length: positions that the model reads at once.
    """

    rows_at_most = ROWS_AT_MOST
    positions_at_most = POSITIONS_AT_MOST

    def __init__(
        self, pack: Pack, halting: Halting, embedding: nn.Module, baton: Tensor | None, max_length: int
    ) -> None:
        self._pack, self._halting, self._embedding = pack, halting, embedding
        self._baton, self.max_length = baton, max_length
        self._layers = len(pack.matrices[0])
        self._embedded: dict[int, Tensor] = {}
        # The first call compiles, or loads what was compiled before: nobody should take that for a token's time.
        self(torch.zeros(1, 1, dtype=torch.long))

    def supports(self, effort: Effort | None) -> bool:
        """Gates, thresholds and forced passes; not readouts, plans and what training does."""
        return effort is None or (effort.readout is None and effort.plan is None and effort.training is None)

    @torch.no_grad()
    def __call__(
        self, tokens: Int[Tensor, "B T"], cache: Cache | None = None, effort: Effort | None = None
    ) -> Output:
        """The states after the final norm, in float32, and the passes; no trace.

        Raises:
            ConfigError: an effort that the model does not have, or no room in the model or the cache.
            ValueError: an effort that the stepper does not support, several positions of several rows, or a cache of
                another shape.
        """
        if not self.supports(effort):
            raise ValueError("a stepper knows no readouts, plans or rehearsals: ask the model")
        batch, length = tokens.shape
        if batch > 1 and length > 1:
            raise ValueError("a stepper takes one position of each row, or several of one row")
        cache = Cache(self._layers, length) if cache is None else cache
        look(tokens, None, cache, self.max_length)
        halting = self._policy(effort or Effort())
        addresses = self._addresses(cache, batch)
        x = self._embed(tokens, cache)
        places = self._places(cache, batch, length)
        pack = self._pack
        states, passes = kernels.advance(
            x.numpy(),
            pack.shape,
            pack.eps,
            pack.matrices,
            pack.scales,
            pack.vectors,
            pack.gate,
            halting,
            pack.turns,
            addresses,
            cache.capacity,
            places,
            pack.final_gain,
        )
        cache.advance(length)
        return Output(
            torch.from_numpy(states).view(batch, length, -1), torch.from_numpy(passes).view(-1, batch, length)
        )

    def logits(self, states: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        """In float32, from as many bits as the weights have."""
        rows = states.detach().to(torch.float32).reshape(-1, states.shape[-1]).contiguous()
        out = kernels.project(self._pack.head, self._pack.head_scales, rows.numpy())
        return torch.from_numpy(out).view(*states.shape[:-1], -1)

    def _policy(self, effort: Effort) -> tuple[int, int, int, np.float32]:
        """What kernels.advance wants to know about halting."""
        limit, forced = self._halting.limits(effort)
        # A gate after the last pass of the call would decide nothing.
        gates = 0 if forced else limit - 1
        threshold = self._halting.threshold if effort.threshold is None else effort.threshold
        return limit, gates, int(self._halting.by_survival), np.float32(threshold)

    def _places(self, cache: Cache, batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Line and position of each row, see kernels.advance."""
        past = np.broadcast_to(np.asarray(cache.past, np.int64), batch)
        return np.repeat(np.arange(batch), length), (past[:, None] + np.arange(length)).ravel()

    def _addresses(self, cache: Cache, batch: int) -> np.ndarray:
        """[L, 2], where keys and values lie; opens and converts stores where that is due."""
        heads, groups = self._pack.shape[:2]
        shape = (batch, groups, cache.capacity, self._pack.final_gain.shape[0] // heads)
        addresses = np.empty((self._layers, 2), np.int64)
        for layer in range(self._layers):
            store = cache.stores.get(layer)
            if store is None:
                store = cache.stores[layer] = KeyValues(torch.zeros(shape), torch.zeros(shape))
            for held in store:
                # The machine code trusts addresses: a store of another shape would be written past its end.
                if held.shape != shape or held.device.type != "cpu":
                    raise ValueError(
                        f"this cache keeps {tuple(held.shape)} on {held.device}, not {shape} on the CPU"
                    )
            if not all(held.dtype == torch.float32 and held.is_contiguous() for held in store):
                store = cache.stores[layer] = KeyValues(*(held.float().contiguous() for held in store))
            addresses[layer, 0], addresses[layer, 1] = store.keys.data_ptr(), store.values.data_ptr()
        return addresses

    def _embed(self, tokens: Int[Tensor, "B T"], cache: Cache) -> Float[Tensor, "n D"]:
        """The rows of the embedding, with what the baton hands over; the cache takes them in for the next position."""
        listed = tokens.flatten().tolist()
        for token in listed:
            if token not in self._embedded:
                with torch.autocast("cpu", enabled=False):
                    self._embedded[token] = self._embedding(torch.tensor([[token]]))[0, 0].float().clone()
        x = torch.stack([self._embedded[token] for token in listed])
        if self._baton is None:
            return x
        last, embedded = cache.last_embedded(), x.view(*tokens.shape, -1)
        cache.embed(embedded)
        first = torch.zeros_like(embedded[:, :1]) if last is None else last.float()
        handed = torch.cat([first, embedded[:, :-1]], dim=1)
        return x + self._baton * handed.flatten(0, 1)
