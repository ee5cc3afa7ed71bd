"""The console: what it shows where, and that nothing a model writes is obeyed."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

import pytest
from rich.console import Console

from ourospec.contracts import Event
from ourospec.telemetry.console import ConsoleObserver, choose_view
from ourospec.telemetry.depth_bands import BANDS, band_colour, legend
from ourospec.telemetry.live_view import LiveView
from ourospec.telemetry.plain_view import PlainView

START = Event(
    "start",
    0,
    {
        "family": "adaptive_lm",
        "name": "tiny",
        "parameters": 5_312_004,
        "device": "cpu",
        "precision": "bfloat16",
        "total_steps": 40,
        "tokens_per_step": 4096,
        "resumed_from": None,
    },
)
SCORE = {"split": "heldout", "loss": 3.3, "loss_se": 0.04, "bits_per_byte": 1.58, "bits_per_byte_se": 0.02}
SCORE |= {"perplexity": 27.1, "mean_passes": 2.25, "flops_per_token": 1.31e7}
SAMPLE = {"prompt": "def ", "text": "f\x1b[2J():\n    pass", "pieces": ["f\x1b[2J", "():", "\n    pass"]}
SAMPLE |= {"passes": [1.0, 4.0, 2.0]}


def step(number: int, **more: object) -> Event:
    data = {"loss": 3.5, "lm_loss": 3.25, "bits_per_byte": 1.5, "lr": 0.0029, "tokens_per_second": 7012.0}
    data |= {"seconds": 0.5 * number, "tokens": 4096 * number, "mean_passes": 2.25}
    return Event("step", number, data | more)


def whole_run() -> list[Event]:
    events = [START, *(step(number) for number in range(1, 41))]
    events.append(Event("eval", 40, SCORE))
    events.append(Event("sample", 40, {"samples": [SAMPLE]}))
    events.append(
        Event("checkpoint", 40, {"path": "checkpoints/step-00000040", "bytes": 64e6, "seconds": 0.4})
    )
    events.append(Event("warning", 40, {"message": "something is odd"}))
    events.append(Event("end", 40, {"status": "complete", "seconds": 20.0}))
    return events


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(events: Iterable[Event], stream: io.StringIO, **options: object) -> str:
    observer = ConsoleObserver(stream, **options)
    for event in events:
        observer.on_event(event)
    observer.close()
    return stream.getvalue()


def screen(events: Iterable[Event], width: int = 110) -> str:
    """What a terminal is sent; the view is given a console of a known kind."""
    stream = Terminal()
    observer = ConsoleObserver(stream)
    observer._view = LiveView(
        Console(file=stream, width=width, force_terminal=True, color_system="256", _environ={})
    )
    for event in events:
        observer.on_event(event)
    observer.close()
    return stream.getvalue()


def shown_plainly(events: Iterable[Event]) -> str:
    return shown(events, io.StringIO(), every=0.0)


def words_of(text: str) -> str:
    return " ".join(without_colours(text).split())


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_plain_lines_tell_the_whole_story() -> None:
    text = shown(whole_run(), io.StringIO(), every=0.0)
    assert "adaptive_lm/tiny: 5.31 M parameters, cpu in bfloat16, 40 steps of 4,096 tokens\n" in text
    numbers = "loss 3.250  bits/byte 1.500  depth 2.25  tokens/s 7.01 k  lr 2.9e-3  trained 0:05"
    assert f"step 10/40  {numbers}  left " in text
    scores = "loss 3.300 ± 0.040, bits/byte 1.580 ± 0.020, perplexity 27.1, depth 2.25"
    assert f"held-out at step 40: {scores}\n" in text
    assert "sample at step 40:\n    def f␛[2J():\n        pass\n" in text
    assert "saved at step 40: checkpoints/step-00000040 (61.0 MiB in 0.4 s)\n" in text
    assert "warning: something is odd\n" in text
    assert "complete after step 40 of 40\n" in text
    assert "\x1b" not in text


DATA = {
    "source": "standard library of Python 3.12.3",
    "train": {"documents": 1204, "tokens": 4_120_000, "bytes": 12_600_000, "bytes_per_token": 3.0583},
    "heldout": {"documents": 1, "tokens": 209_800, "bytes": 640_000, "bytes_per_token": 3.0505},
}


def test_what_is_read_is_said_at_the_start() -> None:
    start = Event("start", 0, {**START.data, "data": DATA})
    text = shown([start], io.StringIO())
    training, heldout = "4.12 M tokens in 1,204 documents", "210 k tokens in 1 document"
    said = ["text standard library of Python 3.12.3", f"training {training}", f"held out {heldout}"]
    said.append("bytes/token 3.06")
    assert text.splitlines()[1] == ", ".join(said)
    words = " ".join(without_colours(screen([start], width=200)).split())
    assert " ".join(said) in words


def test_a_source_of_many_odd_names_stays_on_its_line() -> None:
    source = "files " + ", ".join(f"a\n\x1b[2J{n}.txt" for n in range(100))
    for data in ({**DATA, "source": source}, {"source": source}):
        text = shown([Event("start", 0, {**START.data, "data": data})], io.StringIO())
        assert len(text.splitlines()) == 2
        assert max(map(len, text.splitlines())) < 180
        assert "\x1b" not in text


def test_plain_lines_do_not_flood() -> None:
    text = shown(whole_run(), io.StringIO(), every=1000.0)
    assert re.findall(r"^step +(\d+)/40", text, re.MULTILINE) == ["1", "40"], "the first and the last"


def test_a_narrow_encoding_is_no_reason_to_fall_silent() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    observer = ConsoleObserver(stream)
    observer.on_event(
        Event("sample", 1, {"samples": [{"prompt": "", "text": "é猫", "pieces": [], "passes": []}]})
    )
    assert raw.getvalue() == b"sample at step 1:\n    ??\n"


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_quiet_says_nothing_but_warnings(make: type[io.StringIO]) -> None:
    text = without_colours(shown(whole_run(), make(), quiet=True))
    assert re.fullmatch(r"warning:? something is odd\n", text)


def test_a_plain_model_is_not_told_of_depth() -> None:
    events = [START, *(Event("step", n, {"loss": 3.0, "tokens_per_second": 1.0}) for n in (1, 40))]
    events += [
        Event("eval", 40, SCORE | {"mean_passes": 1.0}),
        Event("end", 40, {"status": "complete", "seconds": 1.0}),
    ]
    for text in (shown(events, io.StringIO(), every=0.0), screen(events)):
        assert "depth" not in text
        assert "3.000" in text
        assert "bits/byte 1.580" in without_colours(text)


@pytest.mark.parametrize("show", [shown_plainly, screen])
def test_depth_stands_beside_its_target_and_its_price(show) -> None:
    market = {"step_kind": "policy", "target_passes": 2.0, "price": 0.002, "price_next": 0.0021}
    text = words_of(show([START, step(39), step(40, **market)]))
    assert "depth 2.25 of 2.00 price 2.1e-3 tokens/s" in text
    text = words_of(show([START, step(40, **market, deadband=True)]))
    assert "depth 2.25 of 2.00 price 2.1e-3 [DB] tokens/s" in text
    text = words_of(show([START, step(40, step_kind="audit", price=-0.01)]))
    assert "depth 2.25 price -1.0e-2 tokens/s" in text, "a constant price has no target"
    text = words_of(show([START, step(40, **{**market, "step_kind": "forced"})]))
    assert "depth 2.25 tokens/s" in text, "while passes are forced, nothing is held or paid"


def test_an_interrupted_run_ends_without_a_score() -> None:
    events = [START, step(1), Event("end", 1, {"status": "interrupted", "seconds": 0.5})]
    for text in (shown(events, io.StringIO()), screen(events)):
        assert "interrupted after step 1 of 40" in without_colours(text)
        assert "held-out" not in text


def test_numbers_that_are_none_are_no_crash() -> None:
    broken = step(1, lm_loss=None, loss=None, lr=None, tokens_per_second=None)
    text = shown([START, broken], io.StringIO(), every=0.0)
    assert "loss –" in text


def test_the_terminal_shows_it_all_and_is_given_back() -> None:
    sent = screen(whole_run())
    text = without_colours(sent)
    assert "adaptive_lm/tiny  5.31 M parameters" in text
    assert "100%  step 40 of 40" in text
    assert re.search(r"training +loss 3.250 +bits/byte 1.500 +depth 2.25 +tokens/s 7.01 k +lr 2.9e-3", text)
    assert "loss 3.300 ± 0.040" in text
    assert "complete after step 40 of 40" in text
    assert "warning something is odd" in text
    assert "\x1b[?25l" in sent, "the cursor was hidden"
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l"), "and is back"


def test_tokens_wear_the_colour_of_their_passes() -> None:
    sent = screen(whole_run())
    assert "\x1b[2J" not in sent, "what a model writes is not obeyed"
    for piece, passes in (("f␛[2J", 1.0), ("():", 4.0), ("    pass", 2.0)):
        assert f"\x1b[38;5;{band_colour(passes)}m{piece}" in sent
    assert "passes per layer:" in without_colours(sent)


def test_a_long_sample_is_cut_on_the_screen() -> None:
    sample = {"prompt": "", "text": "\n".join(f"line{n}" for n in range(30)), "pieces": [], "passes": []}
    text = screen([START, Event("sample", 1, {"samples": [sample]})])
    assert "line7" in text
    assert "…" in text
    assert "line8" not in text


def test_a_narrow_terminal_is_kept_within() -> None:
    lines = without_colours(screen(whole_run(), width=50)).splitlines()
    assert max(len(re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", line).strip("\r")) for line in lines) <= 50


@pytest.mark.parametrize("width", [60, 80, 110])
def test_no_number_is_parted_from_its_name_where_a_line_ends(width: int) -> None:
    market = {"step_kind": "policy", "target_passes": 2.0, "price_next": 0.0021, "deadband": True}
    text = without_colours(screen([START, *(step(n, **market) for n in (1, 40))], width=width))
    for whole in ("loss 3.250", "depth 2.25 of 2.00", "price 2.1e-3 [DB]", "tokens/s 7.01 k", "lr 2.9e-3"):
        assert whole in text


def test_which_view_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(choose_view(Terminal(), 1.0), LiveView)
    assert isinstance(choose_view(io.StringIO(), 1.0), PlainView)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(choose_view(Terminal(), 1.0), PlainView)


def test_bands_cover_every_depth_in_order() -> None:
    limits = [band.limit for band in BANDS]
    assert limits == sorted(limits)
    colours = [colour for _, colour in legend()]
    assert [band_colour(p) for p in (1.0, 1.25, 2.0, 2.1, 16.0)] == colours
    assert [name for name, _ in legend()] == ["1", "to 1.5", "to 2", "to 3", "over 3"]


@pytest.mark.parametrize("show", [lambda events: shown(events, io.StringIO(), run="runs/a"), screen])
def test_a_red_flag_is_a_warning_with_a_command_to_try(show) -> None:
    slow = [step(n, tokens_per_second=9000.0 if n < 60 else 900.0) for n in range(1, 140)]
    text = " ".join(without_colours(show([START, *slow])).split())
    assert text.count("warning") == 1
    assert re.search(r"Training has become slow \(step \d+\)\. [\d.]+ k tokens/s .* Try: ouro doctor", text)


def of_spacings() -> list[Event]:
    """A run whose targets are no tokens."""
    side = {"spacings": 5376, "where": "heights 14 to 5,796"}
    about = {"unit": "spacing", "data": {"source": "zeros 1 to 6,000", "train": side, "heldout": side}}
    events = [Event("start", 0, {**START.data, **about, "family": "real", "total_steps": 2})]
    readings = {"loss": 3.5, "nll": 2.75, "lr": 0.0029, "tokens_per_second": 7012.0, "tokens": 8192}
    events += [Event("step", number, readings) for number in (1, 2)]
    events.append(Event("eval", 2, {"split": "heldout", "loss": 0.5, "loss_se": 0.04, "crps": 0.2}))
    end = {"status": "complete", "seconds": 1.0, "stopped_early": "no held-out loss below 0.5000 nats"}
    return [*events, Event("end", 2, end)]


@pytest.mark.parametrize("show", [lambda events: shown(events, io.StringIO()), screen])
def test_a_run_that_reads_no_text_is_told_in_its_own_unit(show):
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", show(of_spacings()))
    assert "2 steps of 4,096 spacings" in text
    assert "training 5.38 k spacings, heights 14 to 5,796" in re.sub(r" +", " ", text)
    assert "0.500 ± 0.040 nats per spacing" in text and "spacings seen" in text and "7.01 k" in text
    assert "no held-out loss below 0.5000 nats" in text
    assert "2.750" in text, "the likelihood alone, not all costs"
    for word in ("token", "perplexity", "byte", "document", "depth"):
        assert word not in text.lower(), word
