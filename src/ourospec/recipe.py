"""The one assembly point: a Recipe and a run directory become a job for the trainer, and come back from one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from ourospec.config import Config
from ourospec.contracts import Fitted, Observer, Probe
from ourospec.data.puzzles.stream import PuzzleStream
from ourospec.data.stream import TokenStream
from ourospec.data.text import Dataset, TextData, open_text
from ourospec.data.tokenizers import Tokenizer
from ourospec.device import DeviceName, DevicePolicy, choose_device
from ourospec.errors import ConfigError
from ourospec.measure.answers import answer_probe
from ourospec.measure.likelihood import heldout_probe
from ourospec.nn.next_token import NextToken
from ourospec.optim.config import OptimConfig
from ourospec.runs import RunDirectory
from ourospec.serve.samples import sample_probe
from ourospec.train.config import TrainConfig
from ourospec.train.loop import Job
from ourospec.train.rng import undisturbed
from ourospec.train.weights import Which

Tell = Callable[[str], None] | None


class Recipe(Config):
    """Everything that decides a run. Families subclass it, adding their model and their objective.

    Two runs of one recipe end in equal weights, bit for bit, on one machine with the same number of threads; on
    CUDA only as far as its kernels are deterministic.
    """

    family: str
    """Name of the model family."""
    name: str = "custom"
    """Name of the preset that this started from."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the initial weights, the order of the data and the samples."""
    train: TrainConfig = TrainConfig()
    """Steps, batches, schedule of evaluations and checkpoints, device."""
    optim: OptimConfig = OptimConfig()
    """Optimiser and learning rate."""

    worth_trying: ClassVar[tuple[str, ...]] = ("evaluate {run}", "report {run} --open")
    """Verbs for a trained run, with what follows them."""
    families: ClassVar[dict[str, type[Recipe]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """A subclass that fixes its family's name becomes readable from recipe.json under that name."""
        super().__pydantic_init_subclass__(**kwargs)
        default = cls.model_fields["family"].default
        if isinstance(default, str):
            Recipe.families[default] = cls

    def to_json(self) -> str:
        """As written into the run directory."""
        return self.model_dump_json(indent=2) + "\n"

    def next_verbs(self) -> Sequence[str]:
        """Of those worth trying, which make sense for this recipe."""
        return self.worth_trying

    def assemble(self, run: RunDirectory, observers: Sequence[Observer], tell: Tell = None) -> Job:
        """Everything the trainer needs to run this in that directory; `tell` hears what is being prepared."""
        raise NotImplementedError

    def open(self, run: RunDirectory, device: DeviceName = "auto", which: Which = "newest") -> Fitted:
        """The newest whole checkpoint of a run of this recipe (or its best weights), for use; api.load's way in.

        Raises:
            ResourceError: it has none.
        """
        raise NotImplementedError


class TextRecipe(Recipe):
    """A recipe of a language model: text in, the next token out."""

    data: TextData = TextData()
    """The corpus and its tokenizer."""
    prompts: tuple[str, ...] = ("def ", "import ", "class ", "# ")
    """Beginnings from which samples are drawn during training; puzzles bring their own, held-out questions."""
    worth_trying: ClassVar[tuple[str, ...]] = ("generate {run} --prompt 'def ' --depth", *Recipe.worth_trying)

    def next_verbs(self) -> Sequence[str]:
        # A model of puzzles has nothing to say about prose.
        return ("generate {run} --puzzle 1", *Recipe.worth_trying) if self.data.asks else self.worth_trying

    def build_model(self, tokenizer: Tokenizer) -> nn.Module:
        """A freshly initialised contracts.LanguageModel for this tokenizer's vocabulary."""
        raise NotImplementedError

    def build_objective(self) -> NextToken:
        """What training minimises, and how long the model may think while it does."""
        raise NotImplementedError

    def assemble(self, run: RunDirectory, observers: Sequence[Observer], tell: Tell = None) -> Job:
        policy = choose_device(self.train.device, self.train.precision)
        dataset = open_text(self.data, tell)
        with undisturbed():
            torch.manual_seed(self.seed)
            model = self.build_model(dataset.tokenizer)
        objective, stream = self.build_objective(), self.open_stream(dataset)
        recipe = self.model_copy(update={"train": self.train.settled(stream)})
        return Job(
            model=model,
            objective=objective,
            stream=stream,
            probes=recipe._probes(dataset, policy, objective.effort),
            observers=observers,
            run=run,
            recipe_json=recipe.to_json(),
            train=recipe.train,
            optim=self.optim,
            seed=self.seed,
            policy=policy,
            about={"data": dataset.summary, "tokens_per_step": stream.tokens_per_step},
            keep=lambda: dataset.tokenizer.save(run.tokenizer),
        )

    def open_stream(self, dataset: Dataset) -> TokenStream | PuzzleStream:
        """The training data in the order of this recipe; its fingerprint stands in every checkpoint."""
        settings = self.train
        return dataset.stream(settings.window, settings.batch_size, settings.micro_batch_size, self.seed)

    def _probes(self, dataset: Dataset, policy: DevicePolicy, effort: Any) -> list[Probe]:
        settings, heldout, end_id = self.train, dataset.heldout, dataset.tokenizer.end_id
        score: Any = answer_probe if self.data.asks else heldout_probe
        scored = score(heldout, end_id, settings.window, settings.eval_tokens, policy, effort)
        asked = dataset.prompts or self.prompts
        sampling = sample_probe(dataset.tokenizer, asked, self.seed, policy, effort=effort)
        return [Probe("eval", settings.eval_every, scored), Probe("sample", settings.sample_every, sampling)]


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file: the recipe.json of a run, or one of any name.

    Raises:
        ConfigError: it is not one that this version can read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return Recipe.families[json.loads(text)["family"]].model_validate_json(text)
    except (KeyError, TypeError, ValueError) as error:
        known = ", ".join(sorted(Recipe.families))
        raise ConfigError(
            f"{path} is not a recipe that this version reads: {error}",
            f"Known families: {known}. If a run's own was edited, restore it: its checkpoints need it as it was.",
        ) from error
