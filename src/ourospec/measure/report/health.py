"""The red flags of a run and its vital signs, as HTML."""

from __future__ import annotations

from ourospec.measure.report.history import History
from ourospec.measure.report.markup import safe
from ourospec.telemetry.alarms import Episode


def render_health(history: History) -> tuple[str, str]:
    """(words, content) of the section: the findings, what still holds first, and the signs over the last steps."""
    diagnosis = history.diagnosis
    cards = "".join(_finding(episode, history) for episode in diagnosis.ordered)
    still = sum(episode.until is None for episode in diagnosis.episodes)
    if still:
        words = f"{still} red flag{'s' if still > 1 else ''}."
    else:
        words = "Nothing to complain of" + (" any more." if diagnosis.episodes else ".")
    return words + (f" {diagnosis.stage()}" if diagnosis.stage() else ""), cards + _signs(history)


def _finding(episode: Episode, history: History) -> str:
    finding, over = episode.finding, episode.until is not None
    when = f"from step {finding.since:,}" + (f" to {episode.until:,}" if over else ", still so at the end")
    mood = {"severe": "bad"}.get(finding.severity, "warn")
    advice = finding.advice(f"runs/{history.folder}", complete=history.diagnosis.complete)
    return (
        f'<article class="settings finding{" over" if over else ""}">'
        f'<h3><span class="pill {mood}">{safe(finding.severity)}</span>{safe(finding.title)}'
        f'<span class="when">{safe(when)}</span></h3>'
        f"<p>{safe(finding.evidence)}</p>"
        f'<p class="cause">Likely cause: {safe(finding.cause)}</p>'
        + ("" if over else f"<code>{safe(advice)}</code>")
        + "</article>"
    )


def _signs(history: History) -> str:
    signs, span = history.diagnosis.signs.signs(), history.diagnosis.signs.span()
    if not signs:
        return ""
    about = "" if span is None else f" over the last {span[0]:,} policy steps"
    rows = "".join(f"<dt>{safe(sign.name)}</dt><dd>{safe(sign.words)}</dd>" for sign in signs)
    return f'<article class="settings signs"><h3>Vital signs{about}</h3><dl>{rows}</dl></article>'
