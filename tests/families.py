"""A tiny random configuration of each supported family of models.

Vocabulary and special tokens are those of the byte tokenizer in conftest.py; sizes are multiples
of 64, so that 4-bit quantisation fits. What a family does differently is there: windows shorter
than a test's rows, soft caps, biases, norms of queries and keys, partial rotation, fused layers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

SIZES: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEADS: dict[str, Any] = {"head_dim": 16}
GEMMA3_LAYERS = ["sliding_attention", "full_attention"]
"""Five to one in the real ones."""


@dataclass(frozen=True)
class Family:
    """One architecture."""

    make_config: Callable[[], PretrainedConfig]

    def make_model(self, seed: int = 0) -> PreTrainedModel:
        """A fresh fp32 model, frozen and in eval mode; the same weights for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(self.make_config())
        return model.requires_grad_(False).eval()


FAMILIES: dict[str, Family] = {
    "llama": Family(lambda: LlamaConfig(**SIZES)),
    "mistral": Family(lambda: MistralConfig(**SIZES, sliding_window=8)),
    "qwen2": Family(lambda: Qwen2Config(**SIZES)),
    "qwen3": Family(lambda: Qwen3Config(**SIZES, **HEADS)),
    "phi": Family(lambda: PhiConfig(**SIZES)),
    "phi3": Family(lambda: Phi3Config(**SIZES)),
    "gemma": Family(lambda: GemmaConfig(**SIZES, **HEADS)),
    "gemma2": Family(lambda: Gemma2Config(**SIZES, **HEADS, sliding_window=8)),
    "gemma3": Family(
        lambda: Gemma3TextConfig(**SIZES, **HEADS, sliding_window=8, layer_types=GEMMA3_LAYERS)
    ),
    "smollm": Family(lambda: LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "smollm3": Family(lambda: SmolLM3Config(**SIZES, no_rope_layers=[1, 0])),
}
