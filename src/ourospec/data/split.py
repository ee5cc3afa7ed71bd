"""Train and held-out text: by groups of documents, near-duplicates on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ourospec.data.documents import (
    OnUndecodable,
    RawDocument,
    Side,
    Source,
    cut_text,
    digest_of,
    documents_of,
)
from ourospec.data.near_duplicates import Union, cluster, sketch
from ourospec.errors import DataError

_ENOUGH = 0.5
"""Part of the share asked for that whole groups must come to."""
_LONG = 1_000_000
"""Characters from which a text held out is no longer one document."""
_HELDOUT_PIECE = 16_384
"""Characters of the pieces in which such a text, or the end of one, is held out."""


@dataclass
class Survey:
    """What a first reading of a corpus found: names, groups, sizes, digests and sketches, but no text."""

    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """Bytes of UTF-8."""
    digests: list[bytes] = field(default_factory=list)
    sketches: list[np.ndarray] = field(default_factory=list)

    def add(self, document: RawDocument) -> None:
        """Take a document in."""
        self.names.append(document.name)
        self.groups.append(document.group)
        self.sizes.append(len(document.text.encode()))
        self.digests.append(digest_of(document.text))
        self.sketches.append(sketch(document.text))

    @property
    def fingerprint(self) -> str:
        """Changes with any document's name, group or text, or with their order."""
        digest = hashlib.sha256()
        for name, group, content in zip(self.names, self.groups, self.digests, strict=True):
            digest.update(f"{name}\0{group}\0{content.hex()}\n".encode())
        return digest.hexdigest()


def survey(source: Source, on_undecodable: OnUndecodable) -> Survey:
    """Read a corpus once.

    Raises:
        DataError: no document in it has any text.
    """
    found = Survey()
    for document in documents_of(source, on_undecodable):
        found.add(document)
    if not found.names:
        raise DataError(
            f"The corpus ({source.describe()}) is empty: no document in it has any text.",
            "Give it text, or train on the default corpus with: --data.source stdlib",
        )
    return found


@dataclass(frozen=True)
class Split:
    """Which documents are held out."""

    heldout: frozenset[int]
    """Numbers of the documents, in the source's order."""
    cut: int | None
    """A document whose end is held out as well: where no choice of whole documents comes near the share."""
    fraction: float
    """Share asked for, of all bytes."""
    cut_fraction: float = 0.0
    """Share of the cut document that is held out."""
    clusters: int = 0
    """Sets of documents that had to stay together."""
    near_duplicates: int = 0
    """Documents that are near-duplicates of an earlier one."""

    def parts(self, index: int, text: str) -> list[tuple[Side, str]]:
        """The sides on which a document's text goes.

        The end of a cut document, and a very long text, is held out in pieces, each then a document: an evaluation
        may so stop anywhere, and has something to take its standard errors over.
        """
        if index == self.cut:
            at = _cut_point(text, self.cut_fraction)
            pieces = cut_text(text[at:], _HELDOUT_PIECE)
            return [("train", text[:at]), *(("heldout", piece) for piece in pieces)]
        if index not in self.heldout:
            return [("train", text)]
        if len(text) <= _LONG:
            return [("heldout", text)]
        return [("heldout", piece) for piece in cut_text(text, _HELDOUT_PIECE)]


def split(found: Survey, fraction: float) -> Split:
    """Hold out about a share of the bytes.

    The choice depends on names and sizes, not on the order or on chance.

    Raises:
        DataError: everything belongs together, so that nothing can be held out.
    """
    duplicates = cluster(np.stack(found.sketches))
    together = _with_groups(duplicates, found.groups)
    sizes = np.bincount(together, weights=found.sizes, minlength=len(together))
    wanted = fraction * float(sum(found.sizes))
    chosen = _choose(found.names, together, sizes, wanted)
    held = float(sizes[list(chosen)].sum())
    facts = {
        "fraction": fraction,
        "clusters": len(np.unique(together)),
        "near_duplicates": int((duplicates != np.arange(len(duplicates))).sum()),
    }
    if held >= _ENOUGH * wanted:
        return Split(frozenset(np.flatnonzero(np.isin(together, list(chosen))).tolist()), None, **facts)
    alone = np.bincount(duplicates, minlength=len(duplicates))[duplicates] == 1
    if not alone.any():
        raise DataError(
            f"All {len(found.names)} documents of the corpus are near-duplicates of each other, so that nothing can "
            "be held out for evaluation without the training text giving it away.",
            "Give more varied text.",
        )
    largest = int(np.argmax(np.where(alone, found.sizes, -1)))
    share = min(wanted / found.sizes[largest], 0.5)
    return Split(frozenset(), largest, cut_fraction=share, **facts)


def _with_groups(duplicates: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    union = Union(len(groups))
    first: dict[str, int] = {}
    for index, (root, group) in enumerate(zip(duplicates.tolist(), groups, strict=True)):
        union.join(index, root)
        union.join(index, first.setdefault(group, index))
    return union.roots()


def _choose(names: Sequence[str], together: np.ndarray, sizes: np.ndarray, wanted: float) -> set[int]:
    """Clusters in the order of their names' hashes, those left out that would overshoot."""
    roots = np.unique(together).tolist()
    label: dict[int, str] = {}
    for name, root in zip(names, together.tolist(), strict=True):
        label[root] = min(name, label.get(root, name))
    roots.sort(key=lambda root: hashlib.sha256(label[root].encode()).digest())
    chosen: set[int] = set()
    held = 0.0
    for root in roots:
        if held + sizes[root] <= 1.05 * wanted:
            chosen.add(root)
            held += sizes[root]
    return chosen


def _cut_point(text: str, fraction: float) -> int:
    """Where a text is cut so that about the share lies behind: at a line's start if one is near."""
    at = min(max(1, round(len(text) * (1 - fraction))), len(text) - 1)
    line = text.rfind("\n", at // 2, at) + 1
    return line if 0 < line < len(text) and text[:line].strip() and text[line:].strip() else at
