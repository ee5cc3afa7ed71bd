"""Sample texts in the middle of training: always the same prompts and seeds, so that they can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ourospec.contracts import Clock, Effort
from ourospec.device import DevicePolicy
from ourospec.serve.sampling import Sampling
from ourospec.serve.session import Vocabulary, generate


@dataclass(frozen=True)
class SampleProbe:
    """Gives the data of a `sample` event; the `run` of a contracts.Probe.

    Prompt i is continued with seed `seed + i`. An empty prompt lets the model begin a document.
    """

    tokenizer: Vocabulary
    prompts: tuple[str, ...]
    policy: DevicePolicy
    max_new_tokens: int = 96
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    effort: Effort | None = None

    def __call__(self, model: Any, clock: Clock) -> Mapping[str, Any]:
        """{"samples": [{"prompt", "text", "pieces": [n], "passes": [n], means over layers}]}."""
        del clock
        return {"samples": [self._sample(model, index) for index in range(len(self.prompts))]}

    def _sample(self, model: Any, index: int) -> dict[str, Any]:
        made = generate(
            model,
            self.tokenizer,
            self.prompts[index],
            policy=self.policy,
            max_new_tokens=self.max_new_tokens,
            sampling=self.sampling,
            seed=self.seed + index,
            effort=self.effort,
        )
        means = [sum(passes) / len(passes) for passes in made.passes]
        return {"prompt": self.prompts[index], "text": made.text, "pieces": made.pieces, "passes": means}
