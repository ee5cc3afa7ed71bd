"""Sample texts in the middle of training: always the same prompts and seeds, so that they can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ourospec.contracts import Clock, Effort
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.serve.generation import Generation, Vocabulary, generate
from ourospec.serve.sampling import GREEDY, Sampling

GREEDY_TOKENS = 32
"""After each prompt."""


def sample_probe(
    tokenizer: Vocabulary,
    prompts: Sequence[str],
    seed: int,
    policy: DevicePolicy,
    *,
    max_new_tokens: int = 96,
    sampling: Sampling | None = None,
    effort: Callable[[Clock], Effort | None] = lambda _: None,
) -> Callable[[Any, Clock], Mapping[str, Any]]:
    """The `run` of a "sample" contracts.Probe. Prompt i is continued with seed `seed + i`.

    It returns {"samples": [{"prompt", "text", "pieces", "passes"}]}: text by token, and the passes behind each
    token as a mean over layers; and the `variety` of what the likeliest tokens, `GREEDY_TOKENS` of them after each
    prompt, come to. An empty prompt lets the model begin a document. A model that cannot be decoded with a cache (keys
    and values per pass) is trained all the same, without samples.
    """

    def run(model: Any, clock: Clock) -> Mapping[str, Any]:
        samples, greedy = [], []
        try:
            model.new_cache(1, 1)
        except ConfigError:
            return {"samples": samples}
        for index, prompt in enumerate(prompts):
            made = generate(
                model,
                tokenizer,
                prompt,
                policy=policy,
                max_new_tokens=max_new_tokens,
                sampling=sampling,
                seed=seed + index,
                effort=effort(clock),
            )
            samples.append({"prompt": prompt, "text": made.text, **_by_piece(made)})
            likeliest = generate(
                model,
                tokenizer,
                prompt,
                policy=policy,
                max_new_tokens=GREEDY_TOKENS,
                sampling=GREEDY,
                effort=effort(clock),
            )
            greedy.append(likeliest.tokens)
        return {"samples": samples, **variety(greedy)}

    return run


def variety(texts: Sequence[Sequence[int]]) -> dict[str, float]:
    """How many different tokens there are in some texts, taken together: a model that has collapsed writes one or two.

    `greedy_tokens`, how many there are in all, ends not counted; `distinct_token_ratio`, the different ones by all;
    `top_token_share`, how much of all the most frequent one is. Without any token there are no shares.
    """
    counts = Counter(token for text in texts for token in text)
    total = counts.total()
    if not total:
        return {"greedy_tokens": 0}
    return {
        "greedy_tokens": total,
        "distinct_token_ratio": len(counts) / total,
        "top_token_share": max(counts.values()) / total,
    }


def _by_piece(made: Generation) -> dict[str, list]:
    return {"pieces": made.pieces, "passes": [sum(passes) / len(passes) for passes in made.passes]}
