"""The page itself: sections in order, style and scripts inlined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

from plotly.offline import get_plotlyjs

from ourospec.measure.report.facts import STATUSES, Fact, details, headline, sentence
from ourospec.measure.report.figures import Figure, draw_figures
from ourospec.measure.report.health import render_health
from ourospec.measure.report.history import History
from ourospec.measure.report.markup import safe
from ourospec.measure.report.tables import (
    render_evaluations,
    render_machine,
    render_settings,
    render_warnings,
)
from ourospec.measure.report.texts import choose_rounds, render_legend, render_round, scale_of

SECTIONS = {
    "learning": ("Learning", "How well it predicts, while training and on data held out from it."),
    "thinking": ("Thinking", "How many passes tokens run through each layer before they leave it."),
    "market": ("The price of a pass", "Whether it holds the budget, and whether the passes earn it."),
    "optimisation": ("Optimisation", "How the weights were moved, and how fast."),
    "others": ("Other readings", "As the objective reports them."),
}
# Nothing may be loaded from anywhere: what a model wrote is on this page.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def render_page(history: History) -> str:
    """The whole page."""
    figures = draw_figures(history)
    body = "".join(
        [
            _header(history),
            _section("health", "Health", *render_health(history)),
            _texts(history),
            *(_plots(name, [f for f in figures if f.section == name]) for name in SECTIONS),
            _evaluations(history),
            _recipe(history),
        ]
    )
    return _document(history.title, body, figures)


def _document(title: str, body: str, figures: Sequence[Figure]) -> str:
    drawn = [{"name": figure.name, "data": figure.data, "layout": figure.layout} for figure in figures]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{safe(title)} · Ouro-Spec</title>
<style>{_asset("page.css")}</style>
</head>
<body>
{body}
<footer>Written by Ouro-Spec from recipe.json and events.jsonl.</footer>
<script type="application/json" id="figures">{_script_safe(json.dumps(drawn))}</script>
<script>{get_plotlyjs()}</script>
<script>{_asset("page.js")}</script>
</body>
</html>
"""


def _header(history: History) -> str:
    word, mood = STATUSES.get(history.status, (history.status, "warn"))
    return f"""<header class="top">
<div class="line"><span class="brand">Ouro-Spec · run report</span>
<button id="theme" type="button" title="Light, dark, or as the system has it">theme: auto</button></div>
<h1>{safe(history.title)} <span class="pill {mood}">{safe(word)}</span></h1>
<p class="lead">{safe(sentence(history))}</p>
<div class="headline">{"".join(map(_tile, headline(history)))}</div>
<dl class="details">{"".join(map(_detail, details(history)))}</dl>
{render_warnings(history)}
</header>"""


def _tile(fact: Fact) -> str:
    error = f' <span class="error">{safe(fact.error)}</span>' if fact.error else ""
    unit = f' <span class="unit">{safe(fact.unit)}</span>' if fact.unit else ""
    return (
        f'<div class="tile"><h2>{safe(fact.name)}</h2>'
        f"<p class='value'>{safe(fact.value)}{error}{unit}</p><p class='note'>{safe(fact.note)}</p></div>"
    )


def _detail(fact: Fact) -> str:
    return f"<div><dt>{safe(fact.name)}</dt><dd>{safe(fact.value)}</dd></div>"


def _texts(history: History) -> str:
    rounds = choose_rounds(history.samples)
    if not rounds:
        return ""
    scale = scale_of(rounds)
    last = len(rounds) - 1
    shown = "".join(
        f'<div class="round" data-step="{moment.step:,}"{"" if index == last else " hidden"}>'
        f"{render_round(moment, scale)}</div>"
        for index, moment in enumerate(rounds)
    )
    slider = f"""<label class="slider"><span>earlier</span>
<input id="rounds" type="range" min="0" max="{last}" value="{last}" aria-label="round of samples"><span>later</span>
<output id="round">step {rounds[last].step:,}</output></label>"""
    words = "Always the same prompts and the same seeds."
    tools = f'<div class="tools">{render_legend(scale)}{slider if last else ""}</div>'
    return _section("texts", "What it writes", words, tools + shown)


def _plots(name: str, figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    title, words = SECTIONS[name]
    cards = "".join(map(_figure, figures))
    return _section(name, title, words, f'<div class="grid {name}">{cards}</div>')


def _figure(figure: Figure) -> str:
    title, caption = safe(figure.title), safe(figure.caption)
    return (
        f"<figure><figcaption><h3>{title}</h3>{f'<p>{caption}</p>' if caption else ''}</figcaption>"
        f'<div class="plot" id="plot-{safe(figure.name)}" role="img" aria-label="{title}"></div></figure>'
    )


def _evaluations(history: History) -> str:
    over = " over documents" if any("documents" in moment.data for moment in history.evaluations) else ""
    words = f"± one standard error{over}. The last is at the top."
    return _section("evaluations", "Evaluations", words, render_evaluations(history))


def _recipe(history: History) -> str:
    cards = render_settings(history.recipe) + render_machine(history)
    return _section(
        "recipe", "Recipe", "Everything that decided this run.", f'<div class="columns">{cards}</div>'
    )


def _section(name: str, title: str, words: str, content: str) -> str:
    return f'<section id="{name}"><h2>{title}</h2><p class="words">{words}</p>{content}</section>\n'


def _asset(name: str) -> str:
    return resources.files("ourospec.measure.report").joinpath(name).read_text(encoding="utf-8")


def _script_safe(text: str) -> str:
    """JSON that cannot end the script element around it."""
    return text.replace("<", "\\u003c")
