"""Adapters of a batch one after another: for prompts of which few share what one of them needs."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from raylora.lora.bank.layout import Weights
from raylora.lora.bank.stacks import Stack


class OneByOne:
    """Products of each adapter's rows with its slot."""

    def __init__(
        self,
        stack: Stack,
        rows: Mapping[str, Sequence[int]],
        adapters: Mapping[str, Weights],
    ) -> None:
        self._stack = stack
        self._adapters = adapters
        self._indices = {key: self._index(own) for key, own in rows.items()}

    def add(self, layer: str, x: Tensor, out: Tensor) -> None:
        """Add to `out` [batch, tokens, out], in place, for `x` [batch, tokens, in]."""
        for key, weights in self._adapters.items():
            rows, slot, rank = self._indices[key], self._stack.table[key], weights.ranks[layer]
            a = self._stack.a[layer][slot, self._stack.layout.rows(layer, rank)]
            b = self._stack.b[layer][slot, :rank]
            taken = x[rows] if isinstance(rows, slice) else x.index_select(0, rows)
            delta = functional.linear(taken, a.to(x.dtype)) @ b.to(x.dtype)
            if layer in weights.scales:
                delta *= weights.scales[layer]
            if isinstance(rows, slice):
                out[rows] += delta
            else:
                out.index_add_(0, rows, delta)

    def forget_input(self) -> None:
        """It keeps none."""

    def _index(self, rows: Sequence[int]) -> slice | Tensor:
        if rows[-1] - rows[0] + 1 == len(rows):
            return slice(rows[0], rows[-1] + 1)
        return torch.tensor(rows, device=self._stack.device)
