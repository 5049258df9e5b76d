"""A small random Llama whose greedy answers wander, and a bank that holds nothing."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM


class BaseOnly:
    """A bank that holds no adapters."""

    in_force = None

    def rows(self, keys: Sequence[str | None]) -> AbstractContextManager[object]:
        unknown = [key for key in keys if key is not None]
        if unknown:
            raise KeyError(unknown[0])
        return nullcontext()

    def stamp(self, key: str) -> str:
        return key


@pytest.fixture(scope="session")
def small_llama(tiny_tokenizer: Any) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
        initializer_range=0.4,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = LlamaForCausalLM(config)
    return model.eval().requires_grad_(False)


@pytest.fixture
def base_only() -> BaseOnly:
    return BaseOnly()
