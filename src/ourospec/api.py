"""The public interface, for notebooks and scripts as for the command line. Stable within a major version."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ourospec.contracts import Clock, Effort, Event, Observer
from ourospec.data.encoding import encode_documents
from ourospec.data.text import TextData, TextDataset, open_text
from ourospec.data.tokenizers import Tokenizer, load_tokenizer
from ourospec.device import DeviceName, DevicePolicy, choose_device
from ourospec.errors import ConfigError, DataError
from ourospec.families import PRESETS
from ourospec.measure.calibrate import SAMPLE_TOKENS, Bench, calibrate, refuse_untaught
from ourospec.measure.calibration_record import (
    Budget,
    CalibrationRecord,
    Pace,
    Weights,
    budget_beside,
    keep_calibrated,
    look_up,
)
from ourospec.measure.gates import SAMPLE_TOKENS as GATE_TOKENS
from ourospec.measure.gates import gate_quality, lay_out_bench
from ourospec.measure.likelihood import Likelihood, choose_documents, score_documents
from ourospec.measure.report import write_report
from ourospec.measure.sample import sample_documents
from ourospec.nn.next_token import NextToken
from ourospec.recipe import Recipe, TextRecipe, read_recipe
from ourospec.runs import RunDirectory, open_run
from ourospec.serve.generation import Generation, generate
from ourospec.serve.pace import decoding_pace, pick_texts
from ourospec.serve.sampling import Sampling
from ourospec.serve.text import Piece
from ourospec.telemetry.environment import write_environment
from ourospec.telemetry.jsonl import JsonlObserver
from ourospec.telemetry.log_file import LogFile
from ourospec.telemetry.samples import SampleFiles
from ourospec.telemetry.stats_file import StatsFile
from ourospec.train.loop import Finish, fit
from ourospec.train.recipe_file import refuse_other_recipe
from ourospec.train.weights import WeightsOrigin, load_weights


class Score(NamedTuple):
    """How well a model foretells a text."""

    nats: float
    """−ln p of the whole text and its end."""
    tokens: int
    """Targets, the end included."""
    bits_per_byte: float
    """nats / ln 2 / bytes of the text."""
    mean_passes: float
    """Executed passes per token and layer."""


class Trace(NamedTuple):
    """What the model computed for each position of a text."""

    logits: Float[Tensor, "T V"]
    """Of the token after each position, float32 on the CPU."""
    passes: Int[Tensor, "L T"]
    """Executed passes."""


def presets() -> dict[str, Callable[[], Recipe]]:
    """All presets by name, such as "adaptive_lm/tiny": each call makes a fresh Recipe."""
    return dict(PRESETS)


def train(
    recipe: Recipe | str,
    run_dir: str | Path,
    *,
    observers: Sequence[Observer] = (),
    tell: Callable[[str], None] | None = None,
    set_price: float | None = None,
) -> Finish:
    """Train a recipe, or go on with it where the directory already holds it, and write the report.

    Args:
        recipe: a Recipe, or the name of a preset.
        run_dir: where everything goes; see runs.RunDirectory.
        observers: watchers beside those that write the directory's own files.
        tell: hears, in a few words each, what is being prepared before the first step.
        set_price: nats per pass with which to start or to go on, as far as the market's floor and ceiling allow; a
            warning event records it.

    Raises:
        OuroError: see train.loop.fit, which this calls.
    """
    if isinstance(recipe, str) and recipe not in PRESETS:
        raise ConfigError(f"There is no preset {recipe!r}.", f"There are: {', '.join(PRESETS)}.")
    chosen = PRESETS[recipe]() if isinstance(recipe, str) else recipe
    run = RunDirectory(Path(run_dir))
    # Before anything is prepared or written: another run's directory stays as it is.
    refuse_other_recipe(run, chosen.to_json())
    files = (JsonlObserver(run), LogFile(run), StatsFile(run), SampleFiles(run), _Paperwork(run))
    job = chosen.assemble(run, [*files, *observers], tell)
    if set_price is not None:
        job = replace(job, adjust=partial(_set_price, set_price))
    return fit(job)


def _set_price(price: float, objective: Any) -> str:
    """Override the price of a pass, and say so.

    Raises:
        ConfigError: this objective has no price, or the price is not a number.
    """
    if not hasattr(objective, "set_price"):
        raise ConfigError("This model pays no price for passes.", "Leave --set-price out.")
    if not math.isfinite(price):
        raise ConfigError(f"A price of {price} cannot be paid.", "Name a number of nats, such as 0.01.")
    before, taken = objective.price, objective.set_price(price)
    bounded = "" if taken == price else f" ({price:g} is outside the market's bounds)"
    return f"The price of a pass was set by hand: {taken:g} nats instead of {before:g}{bounded}."


@dataclass(frozen=True)
class _Paperwork:
    """Records the machine when a run starts and writes the report when it ends, however it ends.

    As an observer it does so only for a start that got past the lock and the recipe, and cannot break the run.
    """

    run: RunDirectory

    def on_event(self, event: Event) -> None:
        if event.kind == "start":
            write_environment(self.run, {key: event.data[key] for key in ("device", "precision")})
        elif event.kind == "end":
            write_report(self.run)

    def close(self) -> None:
        """Nothing is held open."""


def load(run_dir: str | Path, *, device: DeviceName = "auto") -> LoadedModel:
    """The newest whole checkpoint of a run, ready for use.

    Raises:
        ConfigError: there is no run at that path, or its recipe cannot be read.
        ResourceError: it has no whole checkpoint.
    """
    run = open_run(run_dir)
    recipe = read_recipe(run.recipe)
    if not isinstance(recipe, TextRecipe):
        raise ConfigError(f"{run.path} holds a {recipe.family}, which does not read text.")
    policy = choose_device(device, recipe.train.precision)
    weights, origin = load_weights(run)
    tokenizer = load_tokenizer(run.tokenizer)
    with torch.random.fork_rng(devices=[]):
        model = recipe.build_model(tokenizer)
    model.load_state_dict(weights)
    objective = recipe.build_objective()
    objective.load_state_dict(origin.objective)
    return LoadedModel(model.to(policy.device).eval(), tokenizer, recipe, policy, run, origin, objective)


class _Document(NamedTuple):
    tokens: np.ndarray
    num_bytes: int


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with everything that belongs to it. Not thread-safe."""

    model: Any
    """The torch module, a contracts.LanguageModel, in eval mode."""
    tokenizer: Tokenizer
    recipe: TextRecipe
    policy: DevicePolicy
    run: RunDirectory
    origin: WeightsOrigin
    """Which checkpoint the weights come from."""
    objective: NextToken
    """What it was trained for, as far as training went: it says how long the model may think."""

    @property
    def weights(self) -> Weights:
        """What a calibration is good for: these weights and no others."""
        return Weights(self.origin.step, self.origin.digest)

    def effort_for(self, budget: float | Budget) -> Effort:
        """How long to think to stay in a budget that was calibrated; a number means passes per token and layer.

        Raises:
            ConfigError: it was not calibrated, or for other weights.
        """
        return look_up(self.run, self.weights, budget_beside(budget, None)).effort()

    def _effort(self, asked: Effort | None, budget: float | Budget | None = None) -> Effort | None:
        """What was asked for, or else how long the objective lets the model think where training stands.

        A run stopped while its passes were still forced is used with them forced: its gates know nothing yet. A limit
        of passes alone limits that, and leaves the threshold as it was trained.
        """
        if budget is not None:
            return self.effort_for(budget_beside(budget, asked))
        usual = self.objective.effort(Clock(self.origin.step, self.recipe.train.steps))
        if asked is None or asked == Effort():
            return usual
        if usual is None or asked.max_passes is None or asked._replace(max_passes=None) != Effort():
            return asked
        forced = usual.forced_passes
        return usual._replace(
            max_passes=asked.max_passes, forced_passes=forced and min(forced, max(asked.max_passes, 1))
        )

    def score(
        self, text: str, *, effort: Effort | None = None, budget: float | Budget | None = None
    ) -> Score:
        """Score one text as one document; see `effort_for` for a budget."""
        tokens = np.asarray(self.tokenizer.encode(text), dtype=np.int64)
        documents = [_Document(tokens, len(text.encode("utf-8")))]
        found = self._score(documents, self._effort(effort, budget))
        nats, count, size = float(found.nats.sum()), int(found.tokens.sum()), int(found.bytes.sum())
        bits = nats / np.log(2) / size if size else float("nan")
        return Score(nats, count, float(bits), float(found.passes.sum(0).mean() / count))

    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        effort: Effort | None = None,
        budget: float | Budget | None = None,
        on_piece: Callable[[Piece], None] | None = None,
    ) -> Generation:
        """Continue a prompt; see serve.generation.generate, and `effort_for` for a budget.

        A budget is a mean over much text: what one short text takes can be more or less.
        """
        return generate(
            self.model,
            self.tokenizer,
            prompt,
            policy=self.policy,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
            stop=stop,
            effort=self._effort(effort, budget),
            on_piece=on_piece,
        )

    def trace(self, token_ids: Sequence[int], *, effort: Effort | None = None) -> Trace:
        """Logits and executed passes for a row of tokens, read as they are: no end token is put in front.

        Raises:
            DataError: no tokens, or ids outside the vocabulary.
            ConfigError: more tokens than the model reads at once.
        """
        outside = [token for token in token_ids if not 0 <= token < self.tokenizer.vocab_size]
        if outside or not len(token_ids):
            what = f"Token {outside[0]} is outside the vocabulary" if outside else "There are no tokens"
            raise DataError(
                f"{what}; this model knows ids 0 to {self.tokenizer.vocab_size - 1}.",
                "Make ids with .tokenizer.encode(text).",
            )
        tokens = torch.tensor([list(token_ids)], device=self.policy.device)
        with self.policy.inference(self.model):
            output = self.model(tokens, effort=self._effort(effort))
            return Trace(self.model.logits(output.states)[0].float().cpu(), output.passes[:, 0].cpu())

    def evaluate(
        self,
        data: TextData | None = None,
        *,
        most_tokens: int | None = None,
        effort: Effort | None = None,
        budget: float | Budget | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> Mapping[str, Any]:
        """Held-out figures with standard errors over documents; see measure.likelihood.Likelihood.summary.

        Args:
            data: text to score, all of it; None for the run's own held-out part.
            most_tokens: score whole documents up to about so many tokens; None for all.
            budget: see `effort_for`.
            tell: hears, in a few words each, what is being prepared, and each document that is taken up.

        Raises:
            DataError: the run's own text has changed since the training, or `data` cannot be read.
        """
        chosen = self._effort(effort, budget)
        if data is None:
            documents = self._text(tell).heldout.documents()
        else:
            documents = encode_documents(data.source, self.tokenizer, data.on_undecodable)
        if most_tokens is not None:
            documents = choose_documents(documents, most_tokens)
        return self._score(_told(documents, tell), chosen).summary()

    def calibrate(
        self,
        budgets: Sequence[float | Budget],
        *,
        most_tokens: int = SAMPLE_TOKENS,
        tell: Callable[[str], None] | None = None,
    ) -> CalibrationRecord:
        """Find the thresholds that meet budgets, on a sample of the training text, and keep them in the run.

        Args:
            budgets: numbers are passes per token and layer; see measure.calibrate and Budget for the rest.
            most_tokens: size of the sample.

        Raises:
            ConfigError: a budget that cannot be met, a model without gates, or gates that were never asked yet.
            DataError: the run's own text has changed since the training.
        """
        wanted = [budget_beside(budget, None) for budget in budgets]
        refuse_untaught(wanted, self._effort(None), self.origin.step)
        text = self._text(tell)
        documents = sample_documents(text.train, text.byte_lengths, most_tokens)
        texts = pick_texts(documents, self.tokenizer.end_id, self.model.max_length)

        def pace(efforts: Sequence[Effort | None]) -> list[Pace]:
            timed = decoding_pace(self.model, self.policy, texts, [self._effort(e) for e in efforts])
            return [Pace(**one._asdict()) for one in timed]

        machine = ", ".join(self.policy.describe().values())
        bench = Bench(lambda effort: self._score(documents, self._effort(effort)), pace, machine)
        return keep_calibrated(self.run, self.weights, calibrate(wanted, bench, tell))

    def gate_quality(
        self, *, most_tokens: int = GATE_TOKENS, tell: Callable[[str], None] | None = None
    ) -> Mapping[str, Any]:
        """Whether the gates know what a pass is worth and give it to the right tokens; see measure.gates.gate_quality.

        Args:
            most_tokens: size of the sample of held-out text; every gate is tried on all of it.

        Raises:
            ConfigError: a model without gates, or gates that were never asked yet.
            DataError: the run's own text has changed since the training.
        """
        text = self._text(tell)
        documents = sample_documents(text.heldout, text.byte_lengths, most_tokens)
        window, rows = self._batches
        end, effort = self.tokenizer.end_id, self._effort(None)
        return gate_quality(
            lay_out_bench(self.model, documents, end, window, self.policy, rows, effort, tell)
        )

    @property
    def _batches(self) -> tuple[int, int]:
        """Positions of a row, and rows."""
        window = min(self.recipe.train.window, self.model.max_length)
        return window, max(1, 4_096 // window)

    def _text(self, tell: Callable[[str], None] | None) -> TextDataset:
        dataset = open_text(self.recipe.data, tell)
        if self.recipe.open_stream(dataset).fingerprint != self.origin.data:
            raise DataError(
                f"The text ({self.recipe.data.source.describe()}) is no longer the one of the training, so that what "
                "is held out now may have been trained on.",
                "Score text that the model has not seen: ouro evaluate RUN --data PATH",
            )
        return dataset

    def _score(self, documents: Any, effort: Effort | None) -> Likelihood:
        window, rows = self._batches
        return score_documents(
            self.model, documents, self.tokenizer.end_id, window, self.policy, rows, effort
        )


def _told(documents: Iterable[Any], tell: Callable[[str], None] | None) -> Iterator[Any]:
    """The documents, each announced as it is taken up."""
    for number, document in enumerate(documents, start=1):
        if tell is not None:
            tell(f"scoring document {number:,}")
        yield document
