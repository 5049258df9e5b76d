"""Adapters for the tiny model, written by the product's own save."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.lora.bank.banked import Adapters
from transformers import LlamaConfig, LlamaForCausalLM

from raylora.config.lora_spec import LoraSpec
from raylora.lora.attach import attach, save_adapter
from raylora.lora.sources import LocalModel

BASE = LocalModel(Path("tiny"), "tiny", "rev-1", "tiny")

MakeAdapter = Callable[..., Path]


@pytest.fixture
def make_adapter(tmp_path: Path, tiny_config: LlamaConfig) -> MakeAdapter:
    """make_adapter(name, seed=.., **LoraSpec fields): a trained-looking adapter directory."""

    def make(name: str, *, seed: int = 0, **fields: object) -> Path:
        model = attach(
            LlamaForCausalLM(tiny_config), LoraSpec.model_validate({"r": 4, **fields}), seed
        )
        generator = torch.Generator().manual_seed(seed)
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.data.normal_(0, 0.1, generator=generator)
        directory = tmp_path / "adapters" / name
        save_adapter(model, directory, BASE, {"run_id": name})
        return directory

    return make


@pytest.fixture
def adapters(make_adapter: MakeAdapter) -> Adapters:
    """Different ranks, scales and targets."""
    return {
        "a": make_adapter("a", seed=1, r=4, lora_alpha=8),
        "b": make_adapter("b", seed=2, r=16, lora_alpha=24),
        "c": make_adapter("c", seed=3, r=1, lora_alpha=3, target_modules=("q_proj", "v_proj")),
        "d": make_adapter("d", seed=4, r=8, target_modules=("up_proj", "down_proj", "o_proj")),
    }
