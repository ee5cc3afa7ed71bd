"""A trained model and what can be done with it; `api` has the door to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ourospec.contracts import Clock, Effort, Stepper, StepWeights
from ourospec.data.corpus import TextSource
from ourospec.data.encoding import encode_documents
from ourospec.data.text import Dataset, TextData, open_text
from ourospec.data.tokenizers import Tokenizer
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError, DataError
from ourospec.measure.answers import score_answers
from ourospec.measure.calibrate import SAMPLE_TOKENS, Bench, calibrate, refuse_untaught
from ourospec.measure.calibration_record import (
    Budget,
    CalibrationRecord,
    Pace,
    Weights,
    budget_beside,
    keep_calibrated,
    look_up,
    nearest_calibrated,
)
from ourospec.measure.gates import SAMPLE_TOKENS as GATE_TOKENS
from ourospec.measure.gates import gate_quality, lay_out_bench
from ourospec.measure.likelihood import Likelihood, Score, choose_documents, score_documents
from ourospec.measure.sample import Excerpt, sample_documents
from ourospec.measure.thinking import SAMPLE_TOKENS as THINKING_TOKENS
from ourospec.measure.thinking import lay_out_thinking, thinking_quality
from ourospec.nn.cost import FlopTable
from ourospec.nn.next_token import NextToken
from ourospec.recipe import TextRecipe
from ourospec.runs import RunDirectory
from ourospec.serve.answering import Solved, pick_puzzle, solve
from ourospec.serve.batch import generate_batch
from ourospec.serve.budget import Allowance
from ourospec.serve.generation import Generation, generate
from ourospec.serve.pace import decoding_pace, pick_texts
from ourospec.serve.receipt import Machinery
from ourospec.serve.sampling import Sampling
from ourospec.serve.session import DecodingSession, Reading
from ourospec.serve.source import Draw, Plain
from ourospec.serve.speculation import Speculative, refuse_speculation
from ourospec.serve.text import Piece
from ourospec.train.weights import WeightsOrigin


class Trace(NamedTuple):
    """What the model computed for each position of a text."""

    logits: Float[Tensor, "T V"]
    """Of the token after each position, float32 on the CPU."""
    passes: Int[Tensor, "L T"]
    """Executed passes."""


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
    _steppers: dict[StepWeights, Stepper | None] = field(default_factory=dict, repr=False, compare=False)

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
        """What was asked for, or else how long the objective lets the model think where training stands."""
        if budget is not None:
            return self.effort_for(budget_beside(budget, asked))
        return self.objective.effort_in_use(asked, Clock(self.origin.step, self.recipe.train.steps))

    def score(
        self, text: str, *, effort: Effort | None = None, budget: float | Budget | None = None
    ) -> Score:
        """Score one text as one document; see `effort_for` for a budget."""
        tokens = np.asarray(self.tokenizer.encode(text), dtype=np.int64)
        documents = [Excerpt(tokens, len(text.encode("utf-8")))]
        return self._score(documents, self._effort(effort, budget)).score()

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
        weights: StepWeights = "float32",
        speculate: bool = False,
        on_piece: Callable[[Piece], None] | None = None,
    ) -> Generation:
        """Continue a prompt; see serve.generation.generate.

        Args:
            budget: mean passes per token and layer (a number) or ms a token, over this text: the threshold is moved
                while it is made. It needs no calibration, but begins with the threshold of one where there is one.
            weights: int8 decodes with weights in 8 bits, which is faster and not quite the same model. The prompt is
                read with the weights as they are.
            speculate: draft tokens with one pass and verify them together, see serve.speculation.

        Raises:
            ConfigError: a budget that the model cannot keep, int8 where there is no compiled step, or speculation with
                either of them.
        """
        if speculate:
            refuse_speculation(budget is not None, weights)
        return generate(
            self.model,
            self.tokenizer,
            prompt,
            policy=self.policy,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
            stop=stop,
            effort=self._effort(effort) if budget is None else None,
            allowance=self._allowance(budget, effort),
            machinery=self._machinery(weights)._replace(
                open_source=self._speculative if speculate else Plain
            ),
            on_piece=on_piece,
        )

    def generate_batch(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        effort: Effort | None = None,
        budget: float | Budget | None = None,
        weights: StepWeights = "float32",
    ) -> list[Generation]:
        """Continue several prompts together; see serve.batch.generate_batch.

        Text i is that of `generate` with its prompt and the seed `seed + i`, up to rounding. A budget is kept on
        average over all of them.
        """
        return generate_batch(
            self.model,
            self.tokenizer,
            prompts,
            policy=self.policy,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
            stop=stop,
            effort=self._effort(effort) if budget is None else None,
            allowance=self._allowance(budget, effort),
            machinery=self._machinery(weights),
        )

    def stepper(self, weights: StepWeights = "float32") -> Stepper | None:
        """The compiled step of this model; None where it has none. Made when it is first asked for, and kept: weights
        that are changed afterwards do not reach it.

        Raises:
            ConfigError: int8 weights where there is no compiled step.
        """
        if weights not in self._steppers:
            self._steppers[weights] = self.model.stepper(weights)
        found = self._steppers[weights]
        if found is None and weights == "int8":
            raise ConfigError(
                "Weights in 8 bits need the compiled step, which this model or this device does not have.",
                "Leave --weights out, or load the model on the CPU.",
            )
        return found

    def _speculative(self, session: DecodingSession, reading: Reading, draw: Draw) -> Speculative:
        """Where there is a compiled step, another one with weights in 8 bits drafts."""
        drafter = self.stepper("int8") if self.stepper() is not None else None
        return Speculative(session, reading, draw, drafter=drafter)

    def _machinery(self, weights: StepWeights) -> Machinery:
        return Machinery(self.stepper(weights), weights, self._table)

    @cached_property
    def _table(self) -> FlopTable:
        return FlopTable(self.model.cost)

    def _allowance(self, budget: float | Budget | None, asked: Effort | None) -> Allowance | None:
        """The budget, and the threshold to begin with: the nearest calibrated one, or as trained."""
        if budget is None:
            return None
        wanted, usual = budget_beside(budget, asked), self._effort(None)
        refuse_untaught([wanted], usual, self.origin.step)
        known = nearest_calibrated(self.run, self.weights, wanted)
        trained = usual.threshold if usual is not None and wanted.readout is None else None
        start = known.threshold if known is not None else trained
        return Allowance(wanted.amount, wanted.unit, wanted.readout, start)

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
        """Held-out figures with standard errors over documents; see measure.likelihood.Likelihood.summary, and for
        puzzles measure.answers.AnswerScores.summary.

        Args:
            data: text to score, all of it, or puzzles, those held out of them; None for the run's own held-out part.
            most_tokens: score whole documents up to about so many tokens; None for all.
            budget: see `effort_for`.
            tell: hears, in a few words each, what is being prepared, and each document that is taken up.

        Raises:
            DataError: the run's own text has changed since the training, or `data` cannot be read.
        """
        chosen = self._effort(effort, budget)
        documents = self._documents(data, tell)
        if most_tokens is not None:
            documents = choose_documents(documents, most_tokens)
        if not (data or self.recipe.data).asks:
            return self._score(_told(documents, tell), chosen).summary()
        # Puzzles are short, and the fewer of a batch still think, the more of them it takes to fill a product.
        rows, end_id = 4 * self._batches[1], self.tokenizer.end_id
        return score_answers(self.model, _told(documents, tell), end_id, self.policy, rows, chosen).summary()

    def thinking(
        self,
        data: TextData | None = None,
        *,
        most_tokens: int = THINKING_TOKENS,
        effort: Effort | None = None,
        budget: float | Budget | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> Mapping[str, Any]:
        """What passes, halting and memory are worth, on a sample of what `evaluate` reads; see
        measure.thinking.thinking_quality. Empty for a model of one pass."""
        chosen, asks = self._effort(effort, budget), (data or self.recipe.data).asks
        if data is None and not asks:
            text = self._text(tell)
            documents = sample_documents(text.heldout, text.byte_lengths, most_tokens)
        else:
            documents = choose_documents(self._documents(data, tell), most_tokens)
        (window, rows), end = self._batches, self.tokenizer.end_id
        bench = lay_out_thinking(
            self.model, documents, end, window, self.policy, rows, chosen, asks=asks, tell=tell
        )
        return thinking_quality(bench)

    def _documents(self, data: TextData | None, tell: Callable[[str], None] | None) -> Iterable[Any]:
        """What is scored: see `evaluate`."""
        if data is None:
            return self._text(tell).heldout.documents()
        if isinstance(data.source, TextSource):
            return encode_documents(data.source, self.tokenizer, data.on_undecodable)
        return open_text(data).heldout.documents()

    def solve(self, number: int, *, effort: Effort | None = None) -> Solved:
        """What this model answers to a held-out puzzle of its own, the first being 1; see serve.answering.solve.

        Raises:
            ConfigError: the run does not learn from puzzles, or has no puzzle of that number.
            DataError: its puzzles have changed since the training.
        """
        puzzle = pick_puzzle(self._text(None) if self.recipe.data.asks else None, number)
        return solve(self.model, self.tokenizer, puzzle, self.policy, self._effort(effort))

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
            asked = [self._effort(effort) for effort in efforts]
            timed = decoding_pace(self.model, self.policy, texts, asked, self.stepper())
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

    def _text(self, tell: Callable[[str], None] | None) -> Dataset:
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
