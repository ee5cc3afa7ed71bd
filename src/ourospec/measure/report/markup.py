"""The one door through which a run's own words come onto the page."""

from __future__ import annotations

from html import escape

from ourospec.telemetry.plain_text import visible


def safe(text: str) -> str:
    """The text as HTML that shows it, in an element or a quoted attribute, and does nothing else."""
    return escape(visible(text))
