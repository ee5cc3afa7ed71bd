"""Kinds of tokens, told apart by their text, and how long each kind was thought about."""

from __future__ import annotations

import keyword
import math
from collections.abc import Sequence
from typing import NamedTuple

from ourospec.measure.report.history import Moment

CLASSES = ("words", "keywords", "numbers", "punctuation", "space", "mixed")
FEWEST = 5
"""Tokens of a class, under which its mean says nothing."""
KEYWORDS = frozenset(keyword.kwlist) | {"self"}
"""Of Python, as Python's own library is what the presets read; in another text they are rare."""


class ClassDepth(NamedTuple):
    """One kind of token."""

    name: str
    tokens: int
    passes: float
    """Mean over its tokens, each itself a mean over the layers."""
    error: float
    """Standard error over tokens."""


def class_of(piece: str) -> str:
    """The class of a token by its text.

    Words are letters, digits and underscores: names, and parts of names. What begins with a digit is a number. Space
    around the token does not count; a token that joins letters with signs is mixed.
    """
    text = piece.strip()
    if not text:
        return "space"
    if text in KEYWORDS:
        return "keywords"
    joined = all(character.isalnum() or character in "._" for character in text)
    if joined and text[0].isdigit():
        return "numbers"
    if not any(character.isalnum() for character in text):
        return "punctuation"
    return "words" if all(character.isalnum() or character == "_" for character in text) else "mixed"


def depth_by_class(samples: Sequence[Moment]) -> list[ClassDepth]:
    """Mean passes of each class over the later half of the rounds of samples, in the order of CLASSES.

    Classes with fewer than FEWEST tokens are left out, and so are samples that do not tell passes and pieces alike.
    """
    rounds = [moment for moment in samples if moment.data.get("samples")]
    found: dict[str, list[float]] = {}
    for moment in rounds[len(rounds) // 2 :]:
        for sample in moment.data["samples"]:
            pieces, passes = sample.get("pieces") or [], sample.get("passes") or []
            if len(pieces) != len(passes):
                continue
            for piece, number in zip(pieces, passes, strict=True):
                if piece and number is not None:
                    found.setdefault(class_of(piece), []).append(float(number))
    return [_class_depth(name, found[name]) for name in CLASSES if len(found.get(name, ())) >= FEWEST]


def _class_depth(name: str, passes: list[float]) -> ClassDepth:
    mean = sum(passes) / len(passes)
    variance = sum((number - mean) ** 2 for number in passes) / (len(passes) - 1)
    return ClassDepth(name, len(passes), mean, math.sqrt(variance / len(passes)))
