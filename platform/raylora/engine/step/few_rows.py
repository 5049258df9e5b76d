"""Linear layers for the few rows of a step, where the processor suits and a C compiler is there.

few_rows.c, few_rows_bf16.c and few_rows_tiles.c say how. A step of SmolLM2 on one core, its
products alone, in ms by torch and so, for 1, 16 and 64 rows:

    fp32, Intel Xeon, AVX-512                 37 -> 37    92 -> 55    168 -> 143
    fp32, the same, weights kept in bf16      37 -> 26    92 -> 47    168 -> 132
    fp32, the same, held to AVX2              38 -> 34   116 -> 94
    bf16, AMD EPYC (Zen 4), AVX512-BF16       36 -> 15    53 -> 30    113 -> 100
    bf16, Intel Xeon, AMX                     37 -> 20    38 -> 20     47 -> 29
"""

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raylora.lora.devices import AVX2, AVX512, BF16_DOTS, BF16_TILES, cpu_flags
from raylora.lora.narrow import NarrowLinear
from raylora.lora.native import Call, Number, Reads, by_tiles, library

MOST_ROWS = 64
MOST_BY_HALVES = 24
"""Of fp32 where registers have 256 bits: torch's products are as fast from there on."""
_LEAST_BESIDE = 16
"""Rows whose products take longer than reading the weights."""

_FP32 = Path(__file__).with_name("few_rows.c")
_BF16 = Path(__file__).with_name("few_rows_bf16.c")
_TILES = Path(__file__).with_name("few_rows_tiles.c")
_TOGETHER = 4
"""Of how many a layer's outputs are to be a multiple."""


def use_few_rows(model: nn.Module) -> int:
    """Let a model's layers on a CPU compute few rows so, without gradients; how many do.

    All else goes through the layers' own products.
    """
    layers = [(layer, _forward_of(layer)) for layer in model.modules() if _fits(layer)]
    changed = 0
    for layer, forward in layers:
        if forward is not None:
            layer.forward = forward
            changed += 1
    return changed


def _fits(layer: Any) -> bool:
    if type(layer) not in (nn.Linear, NarrowLinear) or "forward" in vars(layer):
        return False
    weight = layer.weight
    on_cpu = weight.device.type == "cpu" and weight.is_contiguous()
    return on_cpu and not layer.out_features % _TOGETHER


def _forward_of(layer: Any) -> "FewRows | None":
    flags, stored = cpu_flags(), layer.weight.dtype
    rests = True
    if type(layer) is NarrowLinear or stored is torch.float32:
        linear = _linear(_FP32, torch.float32, stored) if AVX2 in flags else None
        dtype, most = torch.float32, MOST_ROWS if AVX512 in flags else MOST_BY_HALVES
    else:
        linear = _tiles(stored) if BF16_TILES in flags else None
        rests = linear is None
        if linear is None and BF16_DOTS in flags:
            linear = _linear(_BF16, stored, stored)
        dtype, most = stored, MOST_ROWS
    return None if linear is None else FewRows(layer, linear, dtype, most, rests)


@functools.cache
def _tiles(dtype: torch.dtype) -> Callable[..., None] | None:
    """By matrix units, where the system lets us have them."""
    found = by_tiles(_TILES, dtype)
    return None if found is None else _linear(_TILES, dtype, dtype)


@functools.cache
def _linear(source: Path, dtype: torch.dtype, stored: torch.dtype) -> Callable[..., None] | None:
    found = library(source, dtype, stored=stored)
    if found is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    found.linear.argtypes = [*(pointer,) * 4, *(number,) * 3, ctypes.c_int, pointer, number]
    found.linear.restype = None
    return found.linear


@dataclass(frozen=True)
class FewRows:
    """In place of a layer's own forward pass."""

    layer: Any
    linear: Callable[..., None]
    dtype: torch.dtype
    """Of the rows."""
    most: int
    rests: bool
    """Whether memory does while many rows are computed."""

    def __call__(self, x: Tensor) -> Tensor:
        layer = self.layer
        rows = x.numel() // layer.in_features
        if rows > self.most or x.dtype is not self.dtype or torch.is_grad_enabled():
            return type(layer).forward(layer, x)
        x = x.contiguous()
        out = x.new_empty(*x.shape[:-1], layer.out_features)
        bias = self._bias()
        self.linear(*self._args(x, bias, out, rows), None, 0)
        return out

    def call(self, x: Tensor, out: Tensor, rows: Number, soon: Sequence[Reads] = ()) -> Call:
        """From the first `rows` of `x` [.., in] to those of `out` [.., out], as x is by then.

        soon: what is fetched meanwhile, as much as there is room for.
        """
        bias = self._bias()
        wanted = (_Soon * len(soon))(*map(_soon, soon))
        args = (*self._args(x, bias, out, rows), wanted, len(wanted))
        return Call(self.linear, args, (x, bias, out))

    def room(self, rows: int, slots: int) -> tuple[int, int]:
        """Of each of so many slots: how often a product fetches, and how many bytes at a time."""
        if not self.rests or not _LEAST_BESIDE <= rows <= self.most:
            return 0, 0
        blocks = self.layer.out_features // _TOGETHER
        return blocks // slots * (rows // _TOGETHER), self.layer.in_features * self.dtype.itemsize

    def _bias(self) -> Tensor | None:
        bias = self.layer.bias
        return None if bias is None else bias.float()

    def _args(self, x: Tensor, bias: Tensor | None, out: Tensor, rows: Number) -> tuple[Any, ...]:
        layer = self.layer
        return (
            x.data_ptr(),
            layer.weight.data_ptr(),
            None if bias is None else bias.data_ptr(),
            out.data_ptr(),
            rows,
            layer.out_features,
            layer.in_features,
            torch.get_num_threads(),
        )


class _Soon(ctypes.Structure):
    _fields_ = [
        ("stack", ctypes.c_void_p),
        ("slots", ctypes.c_void_p),
        ("count", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("size", ctypes.c_int64),
    ]


def _soon(reads: Reads) -> _Soon:
    stack, slots, stride, size = reads
    return _Soon(stack, slots.numbers, slots.length, stride, size)
