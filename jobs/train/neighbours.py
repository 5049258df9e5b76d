"""Which neighbouring adapters a layer computes at once: policy.

Their As are stacked and their Bs laid side by side: a few matrix products for all of them instead
of a few for each. All tokens then meet all ranks, and what is not a token's own is times 0.

That pays while products are small. On one core of a CPU with bf16 units the products of a layer of
576 to 1536 take 250 us for 64 tokens at rank 16, so four times that for four adapters, and 707 us
for 256 tokens at rank 64; 425 us for 256 tokens at rank 16, and twice 517 us for 512 at rank 32.
"""

from collections.abc import Sequence
from typing import Protocol

MOST_TOKENS = 256
MOST_RANKS = 64


class Sized(Protocol):
    """An adapter's size, and what it must share with those computed with it."""

    @property
    def rank(self) -> int:
        """Rows of A."""
        ...

    @property
    def dropout(self) -> float:
        """Share of x that it does not see."""
        ...


def neighbours(lengths: Sequence[int], adapters: Sequence[Sized]) -> list[slice]:
    """Groups of one or more, in order. lengths: tokens that go through each adapter."""
    groups: list[slice] = []
    tokens = ranks = 0
    for i, (length, own) in enumerate(zip(lengths, adapters, strict=True)):
        tokens, ranks = tokens + length, ranks + own.rank
        alike = i > 0 and own.dropout == adapters[i - 1].dropout
        if groups and alike and tokens <= MOST_TOKENS and ranks <= MOST_RANKS:
            groups[-1] = slice(groups[-1].start, i + 1)
        else:
            groups.append(slice(i, i + 1))
            tokens, ranks = length, own.rank
    return groups
