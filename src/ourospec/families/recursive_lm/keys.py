"""The keys and values of a recursion: what tokens that are still thinking see of themselves and of the others.

Letters: B rows, T positions, D width, G key-value heads, S positions of a cache, d width of a head.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from ourospec.nn.attention import Attention
from ourospec.nn.cache import Cache, KeyValues
from ourospec.nn.compaction import Everyone, Packed
from ourospec.nn.visibility import Visibility


class Keys:
    """A place holds the keys and values that one attention wrote in one step; each step has places of its own.

    A token that has halted writes nothing more: whoever thinks on sees it as it was in its last step. So nothing that
    a token reads depends on whether the halted ones are computed along, and a cache holds for every step what the
    positions before showed in it.

    Args:
        per_step: places of a step.
        cache: of the positions before; None where there are none.
        first: number of the first of its layers that belong to the recursion; the text has that one, the steps the
            following.
    """

    def __init__(self, visibility: Visibility, per_step: int, cache: Cache | None, first: int) -> None:
        self.visibility, self.per_step, self._cache, self._first = visibility, per_step, cache, first
        self.company: Everyone | Packed = Everyone(visibility)
        self._step = 0
        self._alive: Tensor | None = None
        self._own: dict[int, KeyValues] = {}
        self._seen: dict[int, KeyValues] = {}
        self._text: KeyValues | None = None

    def begin_step(self, step: int, company: Everyone | Packed, alive: Bool[Tensor, "B T"] | None) -> None:
        """Step number `step`, from 0. Who is alive; None: everyone, and nobody ever halted."""
        self._step, self.company, self._alive = step, company, alive

    def fix(self, attention: Attention, text: Float[Tensor, "B T D"]) -> None:
        """What all steps see of the text."""
        told = attention.tell(text, self.visibility)
        self._text = told if self._cache is None else self._cache.extend(self._first, told)

    def fix_again(self, attention: Attention, text: Float[Tensor, "B T D"]) -> None:
        """The same from a text without history, for steps whose gradient ends at it; without a cache."""
        self._text = attention.tell(text, self.visibility)

    def ask_text(self, attention: Attention, asking: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """What these tokens read of the text."""
        assert self._text is not None
        return self._read(attention, asking, self._text)

    def tell(self, place: int, attention: Attention, state: Float[Tensor, "*rows D"]) -> None:
        """What these tokens show in this step."""
        self._keep(place, self.company.tell(attention, state))

    def ask(
        self, place: int, attention: Attention, asking: Float[Tensor, "*rows D"]
    ) -> Float[Tensor, "*rows D"]:
        """What these tokens read of what was told in this step."""
        return self._read(attention, asking, self._seen[place])

    def look(
        self, place: int, attention: Attention, state: Float[Tensor, "*rows D"]
    ) -> Float[Tensor, "*rows D"]:
        """Both, of one state: what these tokens read of what they show themselves."""
        queries, told = self.company.project(attention, state)
        self._keep(place, told)
        return self.company.attend(attention, queries, self._seen[place])

    def end(self, steps: int) -> None:
        """All tokens have halted after the present step: to later ones they look as they look now, in all `steps`."""
        if self._cache is None:
            return
        while self._step + 1 < steps:
            self._step += 1
            for place, told in tuple(self._own.items()):
                self._store(place, told)

    def _keep(self, place: int, told: KeyValues) -> None:
        """What was told by those who are alive, or by everyone."""
        held = self._own.get(place)
        if held is not None and self._alive is not None:
            told = self.company.renew(held, told, self._alive)
        self._store(place, told)

    def _store(self, place: int, told: KeyValues) -> None:
        self._own[place] = self._seen[place] = told
        if self._cache is not None:
            layer = self._first + 1 + self._step * self.per_step + place
            self._seen[place] = self._cache.extend(layer, told)

    def _read(self, attention: Attention, asking: Tensor, seen: KeyValues) -> Tensor:
        return self.company.attend(attention, self.company.query(attention, asking), seen)
