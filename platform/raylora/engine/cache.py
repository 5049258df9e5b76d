"""Keys and values of the running rows, in buffers that rows join and leave without a rebuild.

Rows are aligned at their newest token: all of them write the same column at a step, and a row's
first token lies wherever its length puts it. So a step writes one slice per layer (a growing
DynamicCache copies everything, 23 KB per token and row for SmolLM2), a joining row is copied in
to the left of that column, and a leaving row's place is taken by the last row.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from raylora.engine.cache_budget import column_capacity, row_capacity


class BatchCache(Cache):
    """The running batch's cache, as the model sees it: columns start to end of the first rows."""

    layers: list[Any]

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_Layer)
        self._starts: list[int] = []
        """Column of each row's first token."""
        self._first = 0
        self._end = 0
        self._columns = 0
        self._longest = 0
        self.version = 0
        """Another number whenever rows, or what is behind them, lie elsewhere."""

    @property
    def rows(self) -> int:
        """Running rows."""
        return len(self._starts)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [self._end - start for start in self._starts]

    @property
    def width(self) -> int:
        """Columns of the longest row."""
        return self._end - self._first

    @property
    def capacity(self) -> int:
        """Columns that the longest row may come to have where it lies."""
        return self._columns - self._first

    @property
    def bytes(self) -> int:
        """Size of the buffers."""
        return sum(layer.bytes for layer in self.layers)

    def read(self, row: int) -> torch.Tensor:
        """Keys and values of a row, [layers, 2, heads, tokens, size]."""
        return torch.stack(
            [layer.read(row, self._starts[row], self._end) for layer in self.layers]
        )

    def open_column(self) -> None:
        """Make room for one more token in every row; the next forward pass fills it."""
        self._reserve(self.rows, self.width, 1)

    def show(self) -> None:
        """Let the layers' keys and values be all columns up to the open one."""
        for layer in self.layers:
            layer.show(self.rows, self._first, self._end + 1)

    def close_column(self) -> None:
        """Keep the column that the forward pass has filled."""
        self._end += 1

    def join(self, prefilled: DynamicCache, lengths: list[int], longest: int) -> None:
        """Add the rows of a left-padded prefill, whose rows have these lengths.

        longest: tokens that any row may come to have.
        """
        width = max(lengths)
        rows = self.rows
        self._longest = longest
        self._reserve(rows + len(lengths), max(width, self.width), 0, prefilled)
        sources: list[Any] = prefilled.layers
        for layer, source in zip(self.layers, sources, strict=True):
            layer.write(rows, self._end, source.keys[:, :, -width:], source.values[:, :, -width:])
        self._align([*self._starts, *(self._end - length for length in lengths)])

    def leave(self, row: int) -> None:
        """Drop a row; the last row takes its place."""
        last = self.rows - 1
        if row != last:
            for layer in self.layers:
                layer.move(last, row, self._end)
        starts = list(self._starts)
        starts[row] = starts[last]
        self._align(starts[:last])

    def clear(self) -> None:
        """Drop every row and the buffers."""
        self.version += 1
        self.layers, self._starts = [], []
        self._first = self._end = self._columns = self._longest = 0

    def _align(self, starts: list[int]) -> None:
        self.version += 1
        if not starts:
            self.clear()
            return
        self._starts, self._first = starts, min(starts)

    def _reserve(self, rows: int, width: int, more: int, like: DynamicCache | None = None) -> None:
        """Make the buffers hold this many rows and columns, and `more` columns to the right."""
        if not self.layers and like is not None:
            self.layers = [_Layer.empty_like(layer) for layer in like.layers]
        fits_left, fits_right = width <= self._end, self._end + more <= self._columns
        if self.layers[0].row_capacity >= rows and fits_left and fits_right:
            return
        self.version += 1
        spare = min(width * 5 // 4, max(self._longest, width + more))
        columns = column_capacity(max(width + more, spare))
        shift = width - self._end
        for layer in self.layers:
            layer.reallocate(row_capacity(rows), columns, self._first, self._end, shift)
        self._columns, self._end, self._first = columns, width, self._first + shift
        self._starts = [start + shift for start in self._starts]


class _Layer(DynamicLayer):
    """One layer's buffers; keys and values are the window of them that the model reads."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: tuple[torch.Tensor, torch.Tensor]
        self._length = 0

    @classmethod
    def empty_like(cls, layer: Any) -> "_Layer":
        """Buffers of no rows with the head shape of a prefilled layer."""
        empty = cls()
        empty._buffers = (layer.keys[:0, :, :0], layer.values[:0, :, :0])
        empty.is_initialized = True
        return empty

    @property
    def row_capacity(self) -> int:
        """Rows the buffers can hold."""
        return self._buffers[0].shape[0]

    @property
    def bytes(self) -> int:
        """Size of the buffers."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def read(self, row: int, start: int, end: int) -> torch.Tensor:
        """Keys and values of a row's columns, [2, heads, columns, size]."""
        return torch.stack([buffer[row, :, start:end] for buffer in self._buffers])

    def reallocate(self, rows: int, columns: int, first: int, end: int, shift: int) -> None:
        """Move columns first to end into new buffers, shifted by `shift` columns."""
        self._buffers = (
            _moved(self._buffers[0], rows, columns, first, end, shift),
            _moved(self._buffers[1], rows, columns, first, end, shift),
        )

    def write(self, row: int, end: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Copy rows in so that their last column is end - 1; nothing is left of former rows.

        A masked column still takes part as zero times its value, so it must not hold a NaN.
        """
        for buffer, new in zip(self._buffers, (keys, values), strict=True):
            rows = buffer[row : row + new.shape[0]]
            rows[:, :, : end - new.shape[2]] = 0
            rows[:, :, end - new.shape[2] : end] = new

    def move(self, source: int, target: int, end: int) -> None:
        """Copy one row over another."""
        for buffer in self._buffers:
            buffer[target, :, :end] = buffer[source, :, :end]

    def show(self, rows: int, first: int, end: int) -> None:
        """Let the model read columns first to end; update() fills the last one."""
        self.keys = self._buffers[0][:rows, :, first:end]
        self.values = self._buffers[1][:rows, :, first:end]
        self._length = end - first - 1

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the newest token's keys and values and return those of all tokens."""
        assert self.keys is not None and self.values is not None
        self.keys[:, :, -1:] = key_states
        self.values[:, :, -1:] = value_states
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return the tokens before the one that update() writes."""
        return self._length


def _moved(
    buffer: torch.Tensor, rows: int, columns: int, first: int, end: int, shift: int
) -> torch.Tensor:
    heads, size = buffer.shape[1], buffer.shape[3]
    moved = buffer.new_zeros((rows, heads, columns, size))
    held = min(rows, buffer.shape[0])
    moved[:held, :, first + shift : end + shift] = buffer[:held, :, first:end]
    return moved
