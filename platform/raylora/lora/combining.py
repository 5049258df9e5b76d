"""Several adapters of one base as one: PEFT's weighted sums of their matrices."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from transformers import PreTrainedModel

from raylora.errors import InvalidAdapter
from raylora.lora import adapter_config, integrity
from raylora.lora.adapter_config import CONFIG
from raylora.lora.attach import write_adapter
from raylora.lora.sources import LocalModel

COMBINED = "combined"


class Method(StrEnum):
    """PEFT's names.

    All of them add up A with A and B with B, which is not the sum of BA: an adapter with itself,
    half and half, counts twice. Evaluate what comes out.
    """

    LINEAR = "linear"
    TIES = "ties"
    """Small values dropped, signs elected (Yadav et al., 2023)."""
    DARE_LINEAR = "dare_linear"
    """Values dropped at random, the rest scaled up (Yu et al., 2024)."""
    DARE_TIES = "dare_ties"

    @property
    def drops(self) -> bool:
        """Whether a share of the values is dropped, which `density` says."""
        return self is not Method.LINEAR


def combine(
    base: PreTrainedModel,
    local: LocalModel,
    directories: Sequence[Path],
    into: Path,
    *,
    method: Method,
    weights: Sequence[float],
    density: float,
    seed: int,
    lineage: Mapping[str, Any],
) -> None:
    """Write the combination of checked adapters, which need one rank, to `into`.

    density: share of the values that are kept by methods that drop some. The same seed drops the
    same ones. Raises InvalidAdapter for adapters that do not go together.
    """
    configs = [_checked(base, local, directory) for directory in directories]
    if len({config.r for config in configs}) > 1 or any(c.rank_pattern for c in configs):
        ranks = ", ".join(f"{c.r}{' and others' if c.rank_pattern else ''}" for c in configs)
        raise InvalidAdapter(
            f"adapters of ranks {ranks} cannot be added up: it takes one rank",
            hint="combine adapters that were trained with one lora.r and no lora.rank_pattern",
        )
    # No plain numbers: PEFT would take layers.0 for the tensors of an adapter called 0.
    names = [f"parent_{index}" for index in range(len(directories))]
    model = PeftModel.from_pretrained(
        base, directories[0], adapter_name=names[0], autocast_adapter_dtype=False
    )
    for name, directory in zip(names[1:], directories[1:], strict=True):
        model.load_adapter(str(directory), name, autocast_adapter_dtype=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        causal: Any = model
        causal.add_weighted_adapter(
            names,
            list(weights),
            COMBINED,
            combination_type=method.value,
            density=density if method.drops else None,
        )
    tensors = get_peft_model_state_dict(model, adapter_name=COMBINED, save_embedding_layers=False)
    # PEFT has put each adapter's scale into its matrices, and means a scale of 1.
    config = model.peft_config[COMBINED].to_dict() | {"use_rslora": False}
    template = directories[0] / adapter_config.CHAT_TEMPLATE
    write_adapter(
        into,
        {key: tensor.detach().cpu() for key, tensor in sorted(tensors.items())},
        config,
        local,
        lineage,
        template.read_text("utf-8") if template.is_file() else None,
    )


def _checked(
    base: PreTrainedModel, local: LocalModel, directory: Path
) -> adapter_config.AdapterConfig:
    integrity.verify(directory, base_config=base.config, base_revision=local.revision)
    return adapter_config.read(directory / CONFIG)
