"""Norms and gates of a model on a CPU in one pass over memory; where a C compiler is there.

pointwise.c says how. Only what Llama's family computes, with the roundings it makes.
"""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from raylora.lora.base import LLAMA_LIKE
from raylora.lora.native import Call, Number, library

_SOURCE = Path(__file__).with_name("pointwise.c")
_NORMS = frozenset(f"{family}RMSNorm" for family in LLAMA_LIKE)
_GATES = frozenset(f"{family}MLP" for family in LLAMA_LIKE - {"Phi3"})
"""Classes with gate_proj, up_proj and down_proj; Phi 3 has the first two in one."""


def use_pointwise(model: Any) -> int:
    """Let a model's norms and gates be computed so, without gradients; how many are."""
    kernels = _kernels(model.dtype) if model.device.type == "cpu" else None
    if kernels is None:
        return 0
    changed = 0
    for module in model.modules():
        own = _own(module, kernels)
        if own is not None and "forward" not in vars(module):
            module.forward = own
            changed += 1
    return changed


@dataclass(frozen=True)
class _Kernels:
    rms_norm: Callable[..., None]
    swiglu: Callable[..., None]
    dtype: torch.dtype

    def take(self, x: Tensor) -> bool:
        """Whether it is for them."""
        return x.dtype is self.dtype and x.is_contiguous() and not torch.is_grad_enabled()


@functools.cache
def _kernels(dtype: torch.dtype) -> _Kernels | None:
    found = library(_SOURCE, dtype)
    if found is None:
        return None
    pointer, number, whole = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    norm, gate = found.rms_norm, found.swiglu
    norm.argtypes = [pointer, pointer, ctypes.c_float, pointer, number, number, whole]
    gate.argtypes = [pointer, pointer, number, whole]
    norm.restype = gate.restype = None
    return _Kernels(norm, gate, dtype)


def _own(module: nn.Module, kernels: _Kernels) -> "Norm | Gate | None":
    name, own = type(module).__name__, module
    if name in _NORMS:
        return Norm(own, kernels)
    if name in _GATES and isinstance(getattr(own, "act_fn", None), nn.SiLU | SiLUActivation):
        return Gate(own, kernels)
    return None


@dataclass(frozen=True)
class Norm:
    """In place of a norm's own forward pass."""

    norm: Any
    kernels: _Kernels

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not self.kernels.take(x) or norm.weight.dtype is not x.dtype:
            return type(norm).forward(norm, x)
        out = torch.empty_like(x)
        self.kernels.rms_norm(*self._args(x, out, x.numel() // x.shape[-1]))
        return out

    def call(self, x: Tensor, out: Tensor, rows: Number) -> Call:
        """From the first `rows` of `x` to those of `out`, as x is by then; both may be one."""
        return Call(self.kernels.rms_norm, self._args(x, out, rows), (self, x, out))

    def _args(self, x: Tensor, out: Tensor, rows: Number) -> tuple[Any, ...]:
        norm = self.norm
        return (
            x.data_ptr(),
            norm.weight.data_ptr(),
            norm.variance_epsilon,
            out.data_ptr(),
            rows,
            x.shape[-1],
            torch.get_num_threads(),
        )


@dataclass(frozen=True)
class Gate:
    """In place of the own forward pass of a gated feed-forward layer (Shazeer, 2020)."""

    mlp: Any
    kernels: _Kernels

    def __call__(self, x: Tensor) -> Tensor:
        mlp = self.mlp
        if torch.is_grad_enabled():
            return type(mlp).forward(mlp, x)
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)
        if not (self.kernels.take(gate) and self.kernels.take(up)):
            return mlp.down_proj(mlp.act_fn(gate) * up)
        call = self.call(gate, up, gate.numel())
        call.function(*call.args)
        return mlp.down_proj(gate)

    def call(self, gate: Tensor, up: Tensor, count: Number) -> Call:
        """Into the first `count` elements of `gate`, as the two are by then."""
        args = (gate.data_ptr(), up.data_ptr(), count, torch.get_num_threads())
        return Call(self.kernels.swiglu, args, (gate, up))
