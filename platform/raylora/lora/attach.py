"""A new LoRA adapter on a base, and a trained one on disk in PEFT's format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import PreTrainedModel

from raylora.config.lora_spec import LoraSpec
from raylora.errors import InvalidConfig, Problem
from raylora.lora import atomic, manifest
from raylora.lora.adapter_config import CONFIG, WEIGHTS
from raylora.lora.base import compute_dtype, linear_shapes
from raylora.lora.sources import LocalModel


def attach(model: PreTrainedModel, spec: LoraSpec, seed: int) -> PeftModel:
    """Put a fresh adapter on the base; only its A and B matrices require gradients.

    They are held in the base's compute dtype: PEFT's default of fp32 costs 25 % of a bf16 step.
    The same seed gives the same A whatever was drawn before, and drawing disturbs no other stream.
    """
    alpha: Any = float(spec.lora_alpha)  # PEFT declares int and computes with either
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.r,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=_target_names(model, spec),
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    dtype = compute_dtype(model)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)  # PEFT leaves fp32 on a 4-bit layer
    return adapted


def save_adapter(
    model: PeftModel,
    directory: Path,
    base: LocalModel,
    lineage: Mapping[str, Any],
    *,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write weights, config and manifest to `directory`, complete or not at all.

    `state` holds the trained tensors by parameter name where they are not those in the model (such
    as gathered ones). The lineage is kept in raylora.json beside the base's id and revision.
    """
    tensors = get_peft_model_state_dict(
        model,
        state_dict=dict(model.named_parameters()) if state is None else dict(state),
        save_embedding_layers=False,  # "auto" asks the model hub whether the vocabulary grew
    )
    config = model.peft_config["default"].to_dict()
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base.id
    config["inference_mode"] = True
    with atomic.directory(directory) as staged:
        contiguous = {name: t.detach().cpu().contiguous() for name, t in sorted(tensors.items())}
        save_file(contiguous, staged / WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(config, indent=2, sort_keys=True)
        (staged / CONFIG).write_text(text + "\n", encoding="utf-8")
        manifest.write(staged, {"base": _identity(base), **lineage})


def _identity(base: LocalModel) -> dict[str, str]:
    return {"id": base.id, "revision": base.revision, "name": base.name}


def _target_names(model: PreTrainedModel, spec: LoraSpec) -> list[str]:
    """Last components of the layers to adapt, checked: PEFT objects only when none matches.

    all-linear becomes those names too. PEFT would save full names for small models, under which a
    layer that is missing from the file looks as if it had never been meant.
    """
    present = sorted({name.rpartition(".")[2] for name in linear_shapes(model)})
    if spec.target_modules == "all-linear":
        return present
    named = spec.target_modules
    names = [named] if isinstance(named, str) else list(named)
    unknown = sorted(set(names) - set(present))
    if unknown:
        raise InvalidConfig(
            [
                Problem(
                    "lora.target_modules",
                    f"the base has no linear layer named {', '.join(unknown)}",
                    f"Write all-linear or some of {', '.join(present)}",
                )
            ]
        )
    return names
