"""Text that a model made, fit to be shown: a terminal obeys what it prints, a page may be turned around by it."""

from __future__ import annotations

import unicodedata

# The control pictures of Unicode stand for the control characters 0 to 31; 127 has its own.
PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {127: "\u2421"}


def visible(text: str) -> str:
    """The text with every character that would act instead of being seen replaced by one that is seen.

    Control characters become their pictures (ESC is ␛); what has none, turns the direction of writing or is half a
    character becomes �. Line ends and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    # Zs: unusual spaces, which are not "printable" to Python and yet do no harm.
    if unicodedata.category(character) == "Zs":
        return character
    return PICTURES.get(ord(character), "\ufffd")
