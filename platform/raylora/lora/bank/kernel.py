"""The functions of kernel.c or kernel_bf16.c, called without a copy."""

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from raylora.lora.devices import BF16_DOTS, cpu_flags
from raylora.lora.native import Call, Reads, library

_ANY = Path(__file__).with_name("kernel.c")
_DOTS = Path(__file__).with_name("kernel_bf16.c")


@dataclass(frozen=True)
class Kernel:
    """The two functions for one number format."""

    library: ctypes.CDLL

    def __post_init__(self) -> None:
        pointer, number, whole = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        batch = ctypes.POINTER(_Batch)
        shrink, expand = self.library.shrink, self.library.expand
        shrink.argtypes = [batch, *(pointer, number) * 2, number, number, pointer, whole]
        expand.argtypes = [batch, *(pointer, number) * 2, number, number, *(pointer,) * 2]
        expand.argtypes += [number, whole]
        shrink.restype = expand.restype = None


class Standing:
    """Which rows of a batch belong to which slot, as the kernel is told."""

    def __init__(self, slots: Sequence[int], rows: Sequence[Sequence[int]]) -> None:
        """rows: batch rows of the adapter in each of `slots`."""
        starts = [0]
        for own in rows:
            starts.append(starts[-1] + len(own))
        self.order = [row for own in rows for row in own]
        """Batch rows, in the order of products and scales."""
        self.slots = torch.tensor(slots)
        self._held = [torch.tensor(numbers) for numbers in (starts, self.order)]
        pointers = [tensor.data_ptr() for tensor in (self.slots, *self._held)]
        self.facts = _Batch(len(slots), *pointers)


def shrink(kernel: Kernel, standing: Standing, x: Tensor, a: Tensor) -> tuple[Tensor, Call]:
    """A x of each row, [rows, ranks], for `x` [batch, in] and `a` [slots, ranks, in]."""
    _, ranks, width = a.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    products = x.new_empty(len(standing.order), ranks)
    args = (
        standing.facts,
        x.data_ptr(),
        x.stride(0),
        a.data_ptr(),
        a.stride(0),
        width,
        ranks,
        products.data_ptr(),
        torch.get_num_threads(),
    )
    held = (standing, x, a, products)
    return products, Call(kernel.library.shrink, args, held, Reads(a, standing.slots))


def expand(
    kernel: Kernel,
    standing: Standing,
    products: Tensor,
    b: Tensor,
    scales: Tensor | None,
    out: Tensor,
) -> Call:
    """Add to `out` [batch, out], in place, `products` [rows, rank] with `b` [slots, rank, out]."""
    _, rank, width = b.shape
    args = (
        standing.facts,
        products.data_ptr(),
        products.stride(0),
        b.data_ptr(),
        b.stride(0),
        width,
        rank,
        None if scales is None else scales.data_ptr(),
        out.data_ptr(),
        out.stride(0),
        torch.get_num_threads(),
    )
    held = (standing, products, b, scales, out)
    return Call(kernel.library.expand, args, held, Reads(b, standing.slots))


@functools.cache
def load(dtype: torch.dtype, stored: torch.dtype) -> Kernel | None:
    """The kernel for rows of a format on the CPU, and adapters kept in another that fits into it.

    None where it cannot be had.
    """
    found = None
    if dtype is stored is torch.bfloat16 and BF16_DOTS in cpu_flags():
        found = library(_DOTS, dtype)
    found = found or library(_ANY, dtype, stored=stored)
    return None if found is None else Kernel(found)


class _Batch(ctypes.Structure):
    _fields_ = [
        ("adapters", ctypes.c_int64),
        ("slots", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
    ]
