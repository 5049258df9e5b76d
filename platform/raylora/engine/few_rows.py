"""Linear layers for the few rows of a step, where bf16 has instructions and a C compiler is there.

few_rows.c says how. A step of SmolLM2 on one core of an AMD EPYC (Zen 4), its products alone: 34
ms by torch and 23 so for one row, 53 and 40 for 16 rows, 111 and 101 for 64.
"""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raylora.lora.devices import BF16_DOTS, BF16_TILES, cpu_flags
from raylora.lora.native import library

MOST_ROWS = 64
MOST_BESIDE_MATRIX_UNITS = 8
"""Where torch's products use matrix units (AMX), which are slow only at what they rearrange."""

_SOURCE = Path(__file__).with_name("few_rows.c")
_TOGETHER = 4
"""Of how many a layer's outputs are to be a multiple."""


def use_few_rows(model: nn.Module) -> int:
    """Let a model's bf16 layers on a CPU compute few rows so, without gradients; how many do.

    All else goes through the layers' own products.
    """
    flags = cpu_flags()
    linear = _linear() if BF16_DOTS in flags else None
    if linear is None:
        return 0
    most = MOST_BESIDE_MATRIX_UNITS if BF16_TILES in flags else MOST_ROWS
    layers = [layer for layer in model.modules() if _fits(layer)]
    for layer in layers:
        layer.forward = _FewRows(layer, linear, most)
    return len(layers)


@functools.cache
def _linear() -> Callable[..., None] | None:
    found = library(_SOURCE, torch.bfloat16)
    if found is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    found.linear.argtypes = [*(pointer,) * 4, *(number,) * 3, ctypes.c_int]
    found.linear.restype = None
    return found.linear


def _fits(layer: Any) -> bool:
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return False
    weight = layer.weight
    on_cpu = weight.device.type == "cpu" and weight.dtype is torch.bfloat16
    return on_cpu and not layer.out_features % _TOGETHER and weight.is_contiguous()


@dataclass(frozen=True)
class _FewRows:
    """In place of a layer's own forward pass."""

    layer: Any
    linear: Callable[..., None]
    most: int

    def __call__(self, x: Tensor) -> Tensor:
        layer = self.layer
        rows = x.numel() // layer.in_features
        if rows > self.most or x.dtype is not torch.bfloat16 or torch.is_grad_enabled():
            return nn.functional.linear(x, layer.weight, layer.bias)
        x = x.contiguous()
        out = x.new_empty(*x.shape[:-1], layer.out_features)
        bias = None if layer.bias is None else layer.bias.float()
        self.linear(
            x.data_ptr(),
            layer.weight.data_ptr(),
            None if bias is None else bias.data_ptr(),
            out.data_ptr(),
            rows,
            layer.out_features,
            layer.in_features,
            torch.get_num_threads(),
        )
        return out
