"""How A and B start where the base's own weights decide it, and what a plain adapter must undo.

PiSSA and OLoRA take a part of each weight W out of the base and give it to A and B, so that their
adapter belongs to a changed base. What it learnt is B A - B0 A0, a matrix of rank 2r: as such it
is saved, and it serves on the base as it was. LoftQ leaves a 4-bit base alone (it is the first
iteration of Li et al., 2023; further ones would store other 4-bit weights): A and B start as what
rounding took away.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from torch import Tensor

from raylora.config.lora_spec import Init, LoraSpec
from raylora.errors import InvalidConfig, Problem

ADAPTER = "default"
"""PEFT's name of the one adapter of a model."""

_LOFTQ_ITERATIONS = 4
"""Of an approximation: rounding errors have no few large parts that only an exact one would find,
and 210 exact ones of SmolLM2 take a minute."""
_OVERSAMPLED = 16
"""Directions that an approximation looks at beyond the rank."""
_NOTHING = 1e-6
"""Of what was taken out: rounding, and no learning, in fp32."""

Pair: TypeAlias = tuple[Tensor, Tensor]
"""A [r, in] and B [out, r] of a layer."""


def start(model: PeftModel, spec: LoraSpec) -> dict[str, Pair]:
    """Set A and B of a fresh adapter as the spec says; PEFT has set those of the other methods.

    Returns A0 and B0 of each layer, times the square root of its scale, by its name in the base:
    what was taken out of the base. Empty where nothing was.
    """
    match spec.init_lora_weights:
        case Init.PISSA | Init.OLORA:
            return {name: _take_out(layer, spec) for name, layer in _layers(model)}
        case Init.LOFTQ:
            base: Any = model.get_base_model()
            originals = _originals(Path(base.name_or_path))
            for name, layer in _layers(model):
                _make_up(layer, name, originals)
        case _:
            pass
    return {}


def learnt(a: Tensor, b: Tensor, scale: float, taken: Pair) -> Pair:
    """A and B of rank 2r, with a scale of 1, for scale * B A less what was taken out.

    Both are balanced: what was taken out is large, so that [A, A0] and [B, -B0] as they are would
    lose digits of the small difference in bf16.
    """
    a0, b0 = (part.float() for part in taken)
    tall = torch.cat([b.float() * scale, -b0], dim=1)
    wide = torch.cat([a.float(), a0], dim=0)
    q_tall, r_tall = torch.linalg.qr(tall)
    q_wide, r_wide = torch.linalg.qr(wide.T)
    u, s, vh = torch.linalg.svd(r_tall @ r_wide.T, full_matrices=False)
    s[s < _NOTHING * b0.norm() * a0.norm()] = 0
    root = s.sqrt()
    new_a, new_b = torch.zeros_like(wide), torch.zeros_like(tall)  # 2r may be more than a side
    new_a[: len(s)] = root[:, None] * (q_wide @ vh.T).T
    new_b[:, : len(s)] = (q_tall @ u) * root
    return new_a.to(a.dtype), new_b.to(b.dtype)


def _layers(model: PeftModel) -> Iterator[tuple[str, Any]]:
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _take_out(layer: Any, spec: LoraSpec) -> Pair:
    """Move a part of the weight into A and B, in the numbers that these can hold."""
    weight, scale = layer.get_base_layer().weight, layer.scaling[ADAPTER]
    rank, whole = layer.r[ADAPTER], weight.data.float()
    if spec.init_lora_weights is Init.PISSA:
        a, b = _principal(whole / scale, rank, spec.pissa_niter)
    else:
        q, r = torch.linalg.qr(whole)
        a, b = r[:rank], q[:, :rank]
    a, b = _set(layer, a, b)
    weight.data = (whole - scale * b.float() @ a.float()).to(weight.dtype)
    root = scale**0.5
    return (a.float() * root).cpu(), (b.float() * root).cpu()


def _make_up(layer: Any, name: str, originals: Mapping[str, Path]) -> None:
    """Give A and B the best of what the 4-bit weight lacks."""
    from bitsandbytes.functional import dequantize_4bit

    packed: Any = layer.get_base_layer().weight
    if not hasattr(packed, "quant_state"):
        return  # left as it was by the quantiser, so that nothing is lacking
    stored = dequantize_4bit(packed.data, packed.quant_state).float()
    lost = _original(name, originals).to(stored.device, torch.float32) - stored
    _set(layer, *_principal(lost / layer.scaling[ADAPTER], layer.r[ADAPTER], _LOFTQ_ITERATIONS))


def _principal(matrix: Tensor, rank: int, iterations: int) -> Pair:
    """A and B whose product is the best approximation of a rank; iterations > 0 is quick."""
    if iterations:
        some_more = min(rank + _OVERSAMPLED, *matrix.shape)
        u, s, v = torch.svd_lowrank(matrix, some_more, niter=iterations)
    else:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        v = vh.T
    root = s[:rank].sqrt()
    return root[:, None] * v[:, :rank].T, u[:, :rank] * root


def _set(layer: Any, a: Tensor, b: Tensor) -> Pair:
    into_a, into_b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    into_a.data = a.to(into_a.dtype).contiguous()
    into_b.data = b.to(into_b.dtype).contiguous()
    return into_a.data.clone(), into_b.data.clone()


def _originals(folder: Path) -> dict[str, Path]:
    """The file of each of the base's weights as they were before they were quantised."""
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            found |= dict.fromkeys(weights.keys(), file)
    return found


def _original(layer: str, originals: Mapping[str, Path]) -> Tensor:
    key = f"{layer}.weight"
    if key not in originals:
        raise InvalidConfig(
            [
                Problem(
                    "lora.init_lora_weights",
                    f"loftq needs the weights before they were quantised, and the base's files "
                    f"have no {key}",
                    "Write default",
                )
            ]
        )
    with safe_open(originals[key], framework="pt") as weights:
        return weights.get_tensor(key)
