"""The documents of a packed row, and the groups of queries that attend at once.

A long document attends block by block of queries: they need no keys past their own end, which
halves its work and bounds the memory of its scores. Short ones of about one length do together,
padded, in place of a dozen operations each: for 16 documents of 32 tokens through SmolLM2 (bf16,
AMX, one thread) attention and its backward pass take 61 ms of a step so, 144 one by one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor

from raylora.jobs.train.softmax import Causal

BLOCK = 256
"""Queries of a block."""
SHORT = 64
"""Tokens of a document that attends beside others."""
STEP = 32
"""Short documents are padded to a multiple of it: by their own length alone, so that what else is
in a pass changes no number."""


class Group(Protocol):
    """Queries that attend at once, each to the keys of its own document.

    Tensors of all tokens are [kv heads, T, groups, size] for queries, with groups = 1 for keys and
    values; those of the group are [heads, rows, size].
    """

    @property
    def count(self) -> int:
        """Queries of each head here, the last of which sees all keys."""
        ...

    def queries(self, part: Tensor) -> Tensor:
        """Of all tokens' what belongs to the group."""
        ...

    def grads(self, part: Tensor) -> Tensor:
        """The same for gradients: 0 where there is no token."""
        ...

    def keys(self, part: Tensor) -> Tensor:
        """The same for keys or values."""
        ...

    def put_queries(self, left: Tensor, right: Tensor, into: Tensor) -> None:
        """Write a product of the group's own, [heads, rows, size], among those of all tokens."""
        ...

    def add_keys(self, left: Tensor, right: Tensor, into: Tensor) -> None:
        """Add one to those of all tokens' keys or values."""
        ...

    def bias(self, window: int | None, groups: int, dtype: torch.dtype) -> Tensor:
        """-inf for keys that a query must not see, else 0: [queries * groups, keys]."""
        ...

    def causal(self, rows: Tensor, window: int | None) -> Causal:
        """Who sees whom, for [heads, rows, ..]."""
        ...


@dataclass(frozen=True)
class Documents:
    """Where the documents of a packed row begin and end."""

    lengths: tuple[int, ...]
    device: torch.device

    @cached_property
    def offsets(self) -> Tensor:
        """[documents + 1], int32, on the device: cumulated lengths from 0."""
        ends = torch.tensor([0, *self.lengths]).cumsum(0)
        return ends.to(self.device, torch.int32)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All queries, each in one of them."""
        return tuple(self._groups())

    def _groups(self) -> Iterator[Group]:
        short: dict[int, list[tuple[int, int]]] = {}
        for start, end in pairwise(accumulate(self.lengths, initial=0)):
            if end - start <= SHORT:
                padded = -(-(end - start) // STEP) * STEP
                short.setdefault(padded, []).append((start, end))
                continue
            for first in range(start, end, BLOCK):
                yield _Block(start, first, min(first + BLOCK, end), self.device)
        for padded, bounds in short.items():
            yield _Beside(bounds, padded, self.device)


class _Queries:
    """What groups have in common: `count` queries with as many keys or more."""

    def __init__(self, count: int, keys: int, device: torch.device) -> None:
        self.count = count
        self._keys = keys
        self._device = device
        self.bias = lru_cache(maxsize=2)(self._bias)

    def causal(self, rows: Tensor, window: int | None) -> Causal:
        return Causal(self.count, rows.shape[1] // self.count, window)

    def _bias(self, window: int | None, groups: int, dtype: torch.dtype) -> Tensor:
        key = torch.arange(self._keys, device=self._device)
        behind = key[self._keys - self.count :, None] - key
        hidden = behind < 0 if window is None else (behind < 0) | (behind >= window)
        bias = torch.zeros(self.count, self._keys, dtype=dtype, device=self._device)
        return bias.masked_fill_(hidden, float("-inf")).repeat_interleave(groups, 0)


class _Block(_Queries):
    """Queries [first, stop) of the document that begins at `start`."""

    def __init__(self, start: int, first: int, stop: int, device: torch.device) -> None:
        super().__init__(stop - first, stop - start, device)
        self._own, self._seen = slice(first, stop), slice(start, stop)

    def queries(self, part: Tensor) -> Tensor:
        return part[:, self._own].flatten(1, 2)

    def grads(self, part: Tensor) -> Tensor:
        return self.queries(part)

    def keys(self, part: Tensor) -> Tensor:
        return part[:, self._seen].flatten(1, 2)

    def put_queries(self, left: Tensor, right: Tensor, into: Tensor) -> None:
        torch.bmm(left, right, out=self.queries(into))

    def add_keys(self, left: Tensor, right: Tensor, into: Tensor) -> None:
        self.keys(into).baddbmm_(left, right)


class _Beside(_Queries):
    """Whole documents, padded at their ends: what stands there is seen by none of their tokens."""

    def __init__(
        self, bounds: Sequence[tuple[int, int]], padded: int, device: torch.device
    ) -> None:
        super().__init__(padded, padded, device)
        starts, ends = torch.tensor(bounds).T
        tokens = starts[:, None] + torch.arange(padded)
        inside = (tokens < ends[:, None]).flatten()
        self._documents = len(bounds)
        self._rows = torch.minimum(tokens, ends[:, None] - 1).flatten().to(device)
        self._inside = inside.nonzero()[:, 0].to(device)
        self._padding = (~inside).nonzero()[:, 0].to(device)
        self._tokens = self._rows[self._inside]
        first, stop = bounds[0][0], bounds[-1][1]
        whole = bool(inside.all()) and stop - first == padded * len(bounds)
        self._together = slice(first, stop) if whole else None
        """Where they lie one after the other and need no padding."""

    def queries(self, part: Tensor) -> Tensor:
        if self._together is not None:
            return self._apart(part[:, self._together])
        return self._apart(part.index_select(1, self._rows))

    def grads(self, part: Tensor) -> Tensor:
        if self._together is not None:
            return self.queries(part)
        found = part.index_select(1, self._rows)
        return self._apart(found.index_fill_(1, self._padding, 0))

    def keys(self, part: Tensor) -> Tensor:
        return self.queries(part)

    def put_queries(self, left: Tensor, right: Tensor, into: Tensor) -> None:
        heads, _, groups, size = into.shape
        found = torch.bmm(left, right).view(heads, -1, groups, size)
        if self._together is not None:
            into[:, self._together] = found
        else:
            into.index_copy_(1, self._tokens, found.index_select(1, self._inside))

    def add_keys(self, left: Tensor, right: Tensor, into: Tensor) -> None:
        """Nobody else adds to these."""
        self.put_queries(left, right, into)

    def _apart(self, rows: Tensor) -> Tensor:
        """[heads, documents * padded, groups, size], a head for each document."""
        heads, _, groups, size = rows.shape
        return rows.reshape(heads * self._documents, self.count * groups, size)
