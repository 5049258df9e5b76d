"""The products of adapters by adapter_products.c, each part of a pass by itself: bf16 with AMX.

They are small and many: torch takes as long to begin one as to compute it, and copies what does
not lie as it wants. Forward and backward, a layer of 576 to 1,536 with four parts of 96 tokens at
ranks 4 to 32, on one core of an Intel Xeon with AMX: 1,180 us by torch, 820 so; one part at rank
16: 350 and 143. A part's numbers do not depend on what else is in the pass.
"""

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import torch
from torch import Tensor

from raylora.jobs.train.route import Adapter, Part
from raylora.lora.native import by_tiles

_SOURCE = Path(__file__).with_name("adapter_products.c")
MANY = 32
"""Widths are a multiple of it, and so are ranks beyond it; those below are even."""
MOST_TOKENS = 256
"""Of a part: what is laid out anew stays in the second cache. There they take 0.7 of torch's time,
for 512 tokens 0.6 to 1.6 of it, for 1,184 twice as long backward."""


def products_of(
    parts: Sequence[Part], adapters: Sequence[Adapter], x: Tensor, width: int
) -> "CompiledProducts | None":
    """Of a layer with these adapters, one a part, from x to `width`; None where torch has to.

    x: the layer's input.
    """
    kernels = _kernels(x.dtype) if x.device.type == "cpu" else None
    if kernels is None or not all(map(_fits, adapters)) or x.shape[-1] % MANY or width % MANY:
        return None
    rows = x.numel() // x.shape[-1]
    bounds = tuple(part.tokens.indices(rows)[:2] for part in parts)
    if any(end - first > MOST_TOKENS for first, end in bounds):
        return None
    return CompiledProducts(tuple(adapters), bounds, kernels)


def _fits(adapter: Adapter) -> bool:
    rank = adapter.rank
    return not adapter.dropout and not rank % (MANY if rank > MANY else 2)


class _Kernels(NamedTuple):
    """Of adapter_products.c."""

    add: Callable[..., None]
    backward: Callable[..., None]


@functools.cache
def _kernels(dtype: torch.dtype) -> _Kernels | None:
    """None as well where the processor has no matrix units."""
    found = by_tiles(_SOURCE, dtype) if dtype is torch.bfloat16 else None
    if found is None:
        return None
    pointer, number, whole = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    add, backward = found.add_adapters, found.adapters_backward
    add.argtypes = [pointer, pointer, ctypes.c_char_p, *(number,) * 3, pointer, whole]
    backward.argtypes = [*(pointer,) * 3, ctypes.c_char_p, *(number,) * 3, pointer, whole]
    add.restype = backward.restype = None
    return _Kernels(add, backward)


@dataclass(frozen=True)
class CompiledProducts:
    """See Products in lora_linear.py."""

    adapters: Sequence[Adapter]
    bounds: Sequence[tuple[int, int]]
    """First token and end of each part."""
    kernels: _Kernels

    def add(self, x: Tensor, y: Tensor, pairs: Sequence[Tensor]) -> Sequence[Tensor]:
        """See Products."""
        sizes = [
            (end - first) * own.rank
            for own, (first, end) in zip(self.adapters, self.bounds, strict=True)
        ]
        low = x.new_empty(sum(sizes))
        room = x.new_empty((x.shape[1] + y.shape[1]) * self._most_ranks)
        table = self._table(pairs, low, [(0, 0)] * len(sizes))
        self.kernels.add(
            *(x.data_ptr(), y.data_ptr(), table, len(sizes), x.shape[1], y.shape[1]),
            *(room.data_ptr(), torch.get_num_threads()),
        )
        return [low, *pairs]

    def gradients(
        self, grad: Tensor, x: Tensor, kept: Sequence[Tensor], d_x: Tensor | None
    ) -> Sequence[Tensor]:
        """See Products."""
        low, *pairs = kept
        found = [torch.empty_like(matrix) for matrix in pairs]
        into = [(a.data_ptr(), b.data_ptr()) for a, b in zip(found[::2], found[1::2], strict=True)]
        widths, ranks = (x.shape[1], grad.shape[1]), self._most_ranks
        most = max(end - first for first, end in self.bounds)
        room = x.new_empty(max(widths) * ranks + (most + MANY) * (sum(widths) + 5 * ranks))
        self.kernels.backward(
            *(grad.data_ptr(), x.data_ptr(), None if d_x is None else d_x.data_ptr()),
            *(self._table(pairs, low, into), len(into), *widths),
            *(room.data_ptr(), torch.get_num_threads()),
        )
        return found

    @property
    def _most_ranks(self) -> int:
        return max(own.rank for own in self.adapters)

    def _table(
        self, pairs: Sequence[Tensor], low: Tensor, into: Sequence[tuple[int, int]]
    ) -> bytes:
        """As struct part has it."""
        fields: list[float] = []
        at = low.data_ptr()
        for own, (first, end), a, b, found in zip(
            self.adapters, self.bounds, pairs[::2], pairs[1::2], into, strict=True
        ):
            fields += (a.data_ptr(), b.data_ptr(), at, *found, first, end, own.rank, own.scale)
            at += (end - first) * own.rank * low.element_size()
        return _layout(len(into)).pack(*fields)


@functools.cache
def _layout(parts: int) -> Struct:
    """Of so many struct part."""
    return Struct("8qd" * parts)
