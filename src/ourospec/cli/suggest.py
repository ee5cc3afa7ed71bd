"""Did-you-mean: the names nearest to one that does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher

CLOSE_ENOUGH = 0.6


def did_you_mean(word: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """A sentence with up to three names near `word`, followed by a space; empty when nothing is near.

    Args:
        word: what was typed.
        known: the names that exist, or names with descriptions: a name is near, too, when its description
            speaks of all that was typed ("learning_rate" is near "lr": "Peak learning rate").
    """
    names = nearest(word, known)
    return f"Did you mean {' or '.join(names)}? " if names else ""


def nearest(word: str, known: Iterable[str] | Mapping[str, str], most: int = 3) -> list[str]:
    """The known names nearest to `word`, best first; those far behind the best are left out."""
    described = known if isinstance(known, Mapping) else dict.fromkeys(known, "")
    scores = {name: likeness(word, name, what) for name, what in described.items()}
    best = max(scores.values(), default=0.0)
    near = [name for name, score in scores.items() if score >= max(CLOSE_ENOUGH, best - 0.15)]
    return sorted(near, key=lambda name: -scores[name])[:most]


def likeness(word: str, name: str, description: str = "") -> float:
    """0 (nothing alike) to 1 (the same), by spelling, by last part, by initials and by description."""
    word, name = normal(word), normal(name)
    last_word, last_name = last_part(word), last_part(name)
    score = max(ratio(word, name), 0.95 * ratio(last_word, last_name))
    if len(word) > 1 and name.startswith(word):
        score = max(score, 0.85)
    parts = [part for part in re.split(r"[_.]", last_word) if part]
    if len(parts) > 1 and "".join(part[0] for part in parts) == last_name:
        score = max(score, 0.9)
    if described_by(parts, description):
        score = max(score, 0.8)
    # Among equals, the one in the group that was named: --optim.x asks for something of the optimiser.
    if "." in word and word.split(".")[0] == name.split(".")[0]:
        score += 0.05
    return min(score, 1.0)


def described_by(parts: list[str], description: str) -> bool:
    """Whether every part begins a word of the description."""
    words = re.findall(r"\w+", description.lower())
    return bool(parts) and all(len(p) > 2 and any(w.startswith(p) for w in words) for p in parts)


def normal(name: str) -> str:
    """A name without dashes at its front, in one spelling."""
    return name.lstrip("-").replace("-", "_").lower()


def last_part(name: str) -> str:
    """What follows the last dot or slash."""
    return re.split(r"[./]", name)[-1]


def ratio(a: str, b: str) -> float:
    """Share of two spellings that is common to both, 0 to 1."""
    return SequenceMatcher(None, a, b).ratio()
