"""The function of kernel.c or of one of its like, for bf16 and for prompts, without a copy."""

import ctypes
import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from raylora.lora.devices import BF16_DOTS, BF16_TILES, cpu_flags
from raylora.lora.native import Call, Slots, by_tiles, library

_ANY = Path(__file__).with_name("kernel.c")
_DOTS = Path(__file__).with_name("kernel_bf16.c")
_TILES = Path(__file__).with_name("kernel_tiles.c")
_PROMPT_DOTS = Path(__file__).with_name("prompt_bf16.c")
_PROMPT_TILES = Path(__file__).with_name("prompt_tiles.c")


@dataclass(frozen=True)
class Kernel:
    """Its function for one number format."""

    library: ctypes.CDLL

    def __post_init__(self) -> None:
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        argtypes = [ctypes.POINTER(_Batch), ctypes.POINTER(_Input), number, pointer]
        argtypes += [ctypes.POINTER(_Part), number, number, ctypes.c_int]
        self.library.adapt.argtypes = argtypes
        self.library.adapt.restype = None


class Standing:
    """Which rows of a batch belong to which slot: calls are told by it, of one after another."""

    def __init__(self, capacity: int) -> None:
        """capacity: rows that there may be."""
        self.capacity = capacity
        self._holder: Callable[[], object] = lambda: None
        """Whose rows it has, which it does not keep alive: calls outlive their adapters."""
        numbers = (torch.zeros(capacity + 1, dtype=torch.long) for _ in range(3))
        self._slots, self._starts, self._rows = numbers
        pointers = [tensor.data_ptr() for tensor in (self._slots, self._starts, self._rows)]
        self.facts = _Batch(0, *pointers)

    def place(self, slots: Sequence[int], rows: Sequence[Sequence[int]], holder: object) -> None:
        """rows: batch rows of the adapter in each of `slots`."""
        starts = [0, *accumulate(map(len, rows))]
        self._slots[: len(slots)] = torch.tensor(slots)
        self._starts[: len(starts)] = torch.tensor(starts)
        self._rows[: starts[-1]] = torch.tensor([row for own in rows for row in own])
        self.facts.adapters = len(slots)
        self._holder = weakref.ref(holder)

    def is_of(self, holder: object) -> bool:
        """Whether the last `place` was its own."""
        return self._holder() is holder

    def slots(self, most: int) -> Slots:
        """Its slots, whichever they are; `most`: how many there may come to be."""
        length = ctypes.addressof(self.facts) + _Batch.adapters.offset
        return Slots(self._slots.data_ptr(), length, most)


class Part(NamedTuple):
    """One of the layers that have an input in common."""

    b: Tensor
    """[slots, rank, out]"""
    column: int
    """The first of its `rank` ones in the products with A."""
    scales: Tensor | None
    """Of each row, [rows] in fp32; None where all are 1."""


class Adapt:
    """What adds B A x to the outputs of some layers with one input, while the stack stays."""

    def __init__(
        self, kernel: Kernel, standing: Standing, a: Tensor, parts: Sequence[Part]
    ) -> None:
        """a: [slots, ranks, in]."""
        self._kernel = kernel
        self._standing = standing
        self._scales = [part.scales for part in parts]
        self._a = _Input(None, 0, a.data_ptr(), a.stride(0), a.shape[2])
        self._parts = (_Part * len(parts))(*map(_part, parts))
        self._columns = [part.column for part in parts]
        self._rank = parts[0].b.shape[1]

    def call(self, products: Tensor, outs: Sequence[Tensor], x: Tensor | None) -> Call:
        """Add to each `out` [batch, out]; what an earlier call did is not to be repeated after it.

        products: A x of each row, [rows, ranks]; computed first where `x` [batch, in] is given.
        """
        start, size = products.data_ptr(), products.element_size()
        for part, column, out in zip(self._parts, self._columns, outs, strict=True):
            part.products = start + column * size
            part.out, part.out_stride = out.data_ptr(), out.stride(0)
        if x is not None:
            self._a.x, self._a.x_stride = x.data_ptr(), x.stride(0)
        args = (
            self._standing.facts,
            None if x is None else self._a,
            products.shape[1],
            start,
            self._parts,
            len(self._parts),
            self._rank,
            torch.get_num_threads(),
        )
        return Call(self._kernel.library.adapt, args, (self, products, outs, x))


@functools.cache
def load(dtype: torch.dtype, stored: torch.dtype) -> Kernel | None:
    """The kernel for rows of a format on the CPU, and adapters kept in another that fits into it.

    None where it cannot be had.
    """
    found = None
    if dtype is stored is torch.bfloat16 and BF16_TILES in cpu_flags():
        found = by_tiles(_TILES, dtype)
    if found is None and dtype is stored is torch.bfloat16 and BF16_DOTS in cpu_flags():
        found = library(_DOTS, dtype)
    found = found or library(_ANY, dtype, stored=stored)
    return None if found is None else Kernel(found)


@functools.cache
def load_for_prompts(dtype: torch.dtype, stored: torch.dtype) -> Kernel | None:
    """The one for many tokens a row; None where it cannot be had."""
    if not dtype is stored is torch.bfloat16 or BF16_DOTS not in cpu_flags():
        return None
    if BF16_TILES not in cpu_flags():
        found = library(_PROMPT_DOTS, dtype)
        return None if found is None else Kernel(found)
    # Torch's products are by matrix units there, whose sums only they have.
    found = by_tiles(_PROMPT_TILES, dtype)
    return None if found is None else Kernel(found)


class _Batch(ctypes.Structure):
    _fields_ = [
        ("adapters", ctypes.c_int64),
        ("slots", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
    ]


class _Input(ctypes.Structure):
    _fields_ = [
        ("x", ctypes.c_void_p),
        ("x_stride", ctypes.c_int64),
        ("a", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("width", ctypes.c_int64),
    ]


class _Part(ctypes.Structure):
    _fields_ = [
        ("b", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("products", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("out_stride", ctypes.c_int64),
    ]


def _part(part: Part) -> _Part:
    b, _, scales = part
    scaled = None if scales is None else scales.data_ptr()
    return _Part(b.data_ptr(), b.stride(0), b.shape[2], None, scaled, None, 0)
