"""How many bytes of keys and values a set of rows may come to need, and whether they fit.

Pure Python; `BatchCache` allocates by the same rules, so the budget holds for what it allocates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

COLUMN_BLOCK = 128
"""Columns are reserved in steps of this many."""


@dataclass(frozen=True)
class CacheBudget:
    """For rows and for prefixes that are kept; None has no end."""

    bytes: int | None
    token_bytes: int
    """Keys and values of one token in all layers."""

    def bytes_for(self, lengths: Sequence[int]) -> int:
        """Buffers for rows that grow up to these lengths."""
        if not lengths:
            return 0
        return self.token_bytes * row_capacity(len(lengths)) * column_capacity(max(lengths))

    def fits(self, lengths: Sequence[int]) -> bool:
        """Whether these rows may be inside together."""
        return self.bytes is None or self.bytes_for(lengths) <= self.bytes

    def longest(self, tokens: int) -> int:
        """Tokens of a row that is alone, up to `tokens`: what fits at all."""
        if self.bytes is None:
            return tokens
        return min(tokens, self.bytes // self.least * COLUMN_BLOCK)

    @property
    def least(self) -> int:
        """Bytes without which no row fits."""
        return self.token_bytes * COLUMN_BLOCK

    def left(self, lengths: Sequence[int], held: int) -> int:
        """What these rows leave for prefixes; nothing is kept where there is no budget.

        held: bytes that rows take now, which may be more than these will come to need.
        """
        if self.bytes is None:
            return 0
        return max(0, self.bytes - max(self.bytes_for(lengths), held))


def row_capacity(rows: int) -> int:
    """Rows of the buffers: the next power of two."""
    return 1 << (rows - 1).bit_length()


def column_capacity(columns: int) -> int:
    """Columns of the buffers: whole blocks."""
    return -(-columns // COLUMN_BLOCK) * COLUMN_BLOCK
