"""Samples during training: the data of a `sample` event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ourospec.contracts import Clock
from ourospec.errors import ConfigError
from ourospec.serve.generation import generate
from ourospec.serve.samples import GREEDY_TOKENS, sample_probe, variety
from ourospec.serve.sampling import GREEDY


def test_each_prompt_is_continued_with_its_own_fixed_seed(model: Any, vocabulary: Any, policy: Any) -> None:
    prompts = ("def ", "", "def ")
    probe = sample_probe(vocabulary, prompts, 11, policy, max_new_tokens=12)
    data = probe(model, Clock(5, 10))
    assert data == probe(model, Clock(9, 10))
    assert [sample["prompt"] for sample in data["samples"]] == list(prompts)
    assert data["samples"][0]["text"] != data["samples"][2]["text"]
    for index, sample in enumerate(data["samples"]):
        made = generate(model, vocabulary, prompts[index], policy=policy, max_new_tokens=12, seed=11 + index)
        assert sample["text"] == made.text == "".join(sample["pieces"])
        assert sample["passes"] == pytest.approx([sum(p) / len(p) for p in made.passes])
    json.dumps(data)
    greedy = [
        generate(model, vocabulary, prompt, policy=policy, max_new_tokens=GREEDY_TOKENS, sampling=GREEDY)
        for prompt in prompts
    ]
    assert {**data, "samples": 0} == {"samples": 0, **variety([made.tokens for made in greedy])}
    assert data["greedy_tokens"] == sum(len(made.tokens) for made in greedy) > 12


def test_a_model_that_cannot_be_decoded_has_no_samples_and_trains_on(vocabulary: Any, policy: Any) -> None:
    class WithoutCache:
        def new_cache(self, batch: int, capacity: int) -> None:
            raise ConfigError("Keys and values that change cannot be cached.", "Train otherwise.")

    data = sample_probe(vocabulary, ("def ",), 0, policy)(WithoutCache(), Clock(5, 10))
    assert data == {"samples": []}
