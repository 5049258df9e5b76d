"""Random adapters on all linear layers, as PEFT and the registry take them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import AutoConfig

from raylora.lora import manifest
from raylora.lora.adapter_config import WEIGHTS
from raylora.lora.base import linear_shapes_of
from raylora.lora.integrity import names
from raylora.lora.sources import LocalModel

RANK = 16
STRENGTH = 0.02
"""Standard deviation of B: enough that each adapter answers in its own way."""


def write_adapters(folder: Path, base: LocalModel, count: int) -> dict[str, Path]:
    """So many adapters by key, a00 on; the same numbers for the same place."""
    return {
        key: write_adapter(folder / key, base, seed)
        for seed, key in enumerate(f"a{i:02}" for i in range(count))
    }


def write_adapter(directory: Path, base: LocalModel, seed: int) -> Path:
    """One adapter in bf16 with its manifest; 9.8 MB for SmolLM2."""
    draw = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    shapes = linear_shapes_of(AutoConfig.from_pretrained(base.path))
    for layer, (out_features, in_features) in shapes.items():
        key_a, key_b = names(layer)
        a = torch.randn(RANK, in_features, generator=draw) / in_features**0.5
        b = torch.randn(out_features, RANK, generator=draw) * STRENGTH
        tensors[key_a], tensors[key_b] = a.bfloat16(), b.bfloat16()
    directory.mkdir(parents=True)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    config = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=sorted({layer.rpartition(".")[2] for layer in shapes}),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.id,
        inference_mode=True,
    )
    config.save_pretrained(str(directory))
    manifest.write(directory, {"base": {"id": base.id, "revision": base.revision}})
    return directory


def many(folder: Path, adapters: Sequence[Path], count: int) -> dict[str, Path]:
    """So many directories by key, whose files are links to those of a few: they cost no disk."""
    made: dict[str, Path] = {}
    for i in range(count):
        source = adapters[i % len(adapters)]
        target = folder / f"n{i:04}"
        target.mkdir(parents=True)
        for file in source.iterdir():
            (target / file.name).hardlink_to(file)
        made[target.name] = target
    return made
