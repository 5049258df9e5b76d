"""The tiny model through a bank, for tests: loaded with adapters, and generating."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from raylora.lora.bank.bank import Bank

PROMPTS = torch.randint(3, 259, (7, 9), generator=torch.Generator().manual_seed(1))
STEPS = 6
WEIGHTS = "adapter_model.safetensors"

Adapters = dict[str, Path]


def bank_of(model: Any, adapters: Adapters, **options: Any) -> Bank:
    bank = Bank(model, **options)
    for key, directory in adapters.items():
        bank.add(key, directory)
    return bank


def generate(
    forward: Callable[..., Any], prompts: Tensor, forced: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Greedy tokens (or the forced ones) and the logits of each step."""
    cache, tokens, logits = DynamicCache(), [], []
    current = prompts
    with torch.inference_mode():
        for step in range(STEPS):
            out = forward(input_ids=current, past_key_values=cache, use_cache=True)
            logits.append(out.logits[:, -1])
            current = logits[-1].argmax(-1, keepdim=True)
            if forced is not None:
                current = forced[:, step : step + 1]
            tokens.append(current)
    return torch.cat(tokens, 1), torch.stack(logits, 1)


def with_bank(model: Any, bank: Bank, keys: Sequence[str | None]) -> Callable[..., Any]:
    def forward(**inputs: Any) -> Any:
        with bank.rows(keys):
            return model(**inputs)

    return forward
