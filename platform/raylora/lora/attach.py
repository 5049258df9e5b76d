"""A new LoRA adapter on a base, and a trained one on disk in PEFT's format."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from raylora.config.lora_spec import Init, LoraSpec
from raylora.lora import atomic, manifest, starting
from raylora.lora.adapter_config import CHAT_TEMPLATE, CONFIG, WEIGHTS, AdapterConfig
from raylora.lora.base import compute_dtype
from raylora.lora.placement import place
from raylora.lora.sources import LocalModel
from raylora.lora.weights import names

_TAKEN = "raylora_taken_out"
"""Attribute of a PeftModel: what its start took out of the base (starting.py)."""


def attach(model: PreTrainedModel, spec: LoraSpec, seed: int) -> PeftModel:
    """Put a fresh adapter on the base; only what is trained requires gradients.

    It is held in the base's compute dtype: PEFT's default of fp32 costs 25 % of a bf16 step. The
    same seed gives the same A whatever was drawn before, and drawing disturbs no other stream.
    PiSSA and OLoRA change the base's weights. Raises InvalidConfig for names the base lacks.
    """
    config = _config(model, spec)
    with _stream(seed, model.device):
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
        _in_compute_dtype(adapted, starting.ADAPTER)
        setattr(adapted, _TAKEN, starting.start(adapted, spec))
    return adapted


def attach_beside(adapted: PeftModel, spec: LoraSpec, seed: int, name: str) -> None:
    """Put one more adapter on the layers that have some: the one that `attach` gives this seed.

    All of them require gradients. Not for whole modules, nor for PiSSA, OLoRA and LoftQ, which
    change the base.
    """
    base: Any = adapted.get_base_model()
    dtype = compute_dtype(base)
    config = adapted.peft_config[name] = _config(base, spec)
    own = AdapterConfig.model_validate(plain_config(config.to_dict()))
    with _stream(seed, base.device):
        # One by one: PEFT's add_adapter compares the names of all modules with those of all
        # layers, which takes 0.3 s on 210 layers and more for each adapter that is there.
        for key, layer in base.named_modules():
            if not isinstance(layer, LoraLayer):
                continue
            alpha = _as_declared(own.alpha(key))
            layer.update_layer(name, own.rank(key), alpha, config, target_name=key)
            for matrices in (layer.lora_A, layer.lora_B):
                weight: Any = matrices[name].weight
                weight.data = weight.data.to(dtype)  # PEFT leaves fp32 on a 4-bit layer
                matrices.requires_grad_(True)  # PEFT leaves that to the active one


def adapter_parameters(adapted: PeftModel, name: str) -> dict[str, torch.nn.Parameter]:
    """A and B of one adapter, by their names in the model."""
    return {
        key: parameter
        for key, parameter in adapted.named_parameters()
        if f".lora_A.{name}." in key or f".lora_B.{name}." in key
    }


def save_adapter(
    model: PeftModel,
    directory: Path,
    base: LocalModel,
    lineage: Mapping[str, Any],
    *,
    name: str = starting.ADAPTER,
    state: Mapping[str, Tensor] | None = None,
    chat_template: str | None = None,
) -> None:
    """Write weights, config and manifest to `directory`, complete or not at all.

    What is written fits the base as it was before `attach`. `name` is the adapter's in the model.
    `state` holds the trained tensors by
    parameter name where they are not those in the model (such as gathered ones); `chat_template`
    is kept where it is not the tokenizer's own. The lineage is kept in raylora.json beside the
    base's id and revision.
    """
    tensors: dict[str, Tensor] = get_peft_model_state_dict(
        model,
        state_dict=_by_every_name(model, state),
        adapter_name=name,
        save_embedding_layers=False,  # "auto" asks the model hub whether the vocabulary grew
    )
    causal: Any = model.get_base_model()
    dtype = compute_dtype(causal)
    tensors = {name: t.detach().to("cpu", dtype) for name, t in sorted(tensors.items())}
    config = model.peft_config[name].to_dict()
    if taken := getattr(model, _TAKEN):
        tensors, config = _on_the_base_as_it_was(tensors, plain_config(config), taken)
    write_adapter(directory, tensors, config, base, lineage, chat_template)


def write_adapter(
    directory: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    base: LocalModel,
    lineage: Mapping[str, Any],
    chat_template: str | None,
) -> None:
    """Write an adapter's tensors, by PEFT's keys, and its config, complete or not at all."""
    written = plain_config(config) | {"base_model_name_or_path": base.id, "inference_mode": True}
    with atomic.directory(directory) as staged:
        # clone: a head that is the embeddings is one tensor under two names, as PEFT reads them
        own = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
        save_file(own, staged / WEIGHTS, metadata={"format": "pt"})
        # Sorted at the top only: within patterns the first match counts.
        text = json.dumps(dict(sorted(written.items())), indent=2)
        (staged / CONFIG).write_text(text + "\n", encoding="utf-8")
        if chat_template is not None:
            (staged / CHAT_TEMPLATE).write_text(chat_template, encoding="utf-8")
        manifest.write(staged, {"base": _identity(base), **lineage})


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """PEFT's config as JSON holds it, without what PEFT finds again."""
    kept = {key: value for key, value in config.items() if key != "modules_to_tie"}
    return kept | {"target_modules": sorted(config["target_modules"])}


def _config(model: PreTrainedModel, spec: LoraSpec) -> LoraConfig:
    placed = place(model, spec)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.r,
        lora_alpha=_as_declared(spec.lora_alpha),
        lora_dropout=spec.lora_dropout,
        target_modules=placed.targets,
        rank_pattern=placed.ranks,
        alpha_pattern=placed.alphas,
        modules_to_save=placed.saved or None,
        ensure_weight_tying=placed.tied,
        use_rslora=spec.use_rslora,
        use_dora=spec.use_dora,
        init_lora_weights=_PEFTS_OWN.get(spec.init_lora_weights, True),
        bias="none",
    )


def _in_compute_dtype(adapted: PeftModel, name: str) -> None:
    causal: Any = adapted.get_base_model()
    dtype = compute_dtype(causal)
    for key, parameter in adapted.named_parameters():
        if parameter.requires_grad and f".{name}" in key:
            parameter.data = parameter.data.to(dtype)  # PEFT leaves fp32 on a 4-bit layer


_PEFTS_OWN: Mapping[Init, Any] = {Init.GAUSSIAN: "gaussian", Init.ORTHOGONAL: "orthogonal"}
"""Starts that need nothing of the base. PEFT's PiSSA rounds A and B after it took them out."""


@contextmanager
def _stream(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a stream of this seed, and leave all others where they are."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield


def _by_every_name(model: PeftModel, state: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Trained tensors by each name that a parameter has in the model."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    held = trained if state is None else state
    first = {id(parameter): name for name, parameter in trained.items()}
    return {
        name: held[first[id(parameter)]]
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) in first
    }


def _as_declared(alpha: float) -> Any:
    """PEFT declares an int, and computes with either."""
    return int(alpha) if float(alpha).is_integer() else alpha


def _on_the_base_as_it_was(
    tensors: dict[str, Tensor], config: dict[str, Any], taken: Mapping[str, starting.Pair]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A plain adapter of twice the rank and a scale of 1 in place of one on a changed base."""
    written = AdapterConfig.model_validate(config)
    converted = dict(tensors)
    for layer, pair in taken.items():
        key_a, key_b = names(layer)
        converted[key_a], converted[key_b] = starting.learnt(
            tensors[key_a], tensors[key_b], written.scale(layer), pair
        )
    ranks = {name: 2 * rank for name, rank in written.rank_pattern.items()}
    plain = {"r": 2 * written.r, "lora_alpha": 2 * written.r, "use_rslora": False}
    return converted, config | plain | {"rank_pattern": ranks, "alpha_pattern": ranks}


def _identity(base: LocalModel) -> dict[str, str]:
    return {"id": base.id, "revision": base.revision, "name": base.name}
