"""How many rows have how many tokens, in round buckets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

MOST_BUCKETS: Final = 16


@dataclass(frozen=True)
class Bucket:
    """Rows of first to last tokens."""

    first: int
    last: int
    rows: int


def histogram(lengths: Sequence[int] | npt.NDArray[np.int32]) -> tuple[Bucket, ...]:
    """Buckets of equal width, 1, 2 or 5 times a power of ten, from the shortest to the longest."""
    found = np.asarray(lengths, np.int64)
    if not len(found):
        return ()
    width = _width(int(found.max() - found.min()) + 1)
    first = int(found.min()) // width
    counts = np.bincount(found // width - first)
    return tuple(
        Bucket((first + place) * width, (first + place + 1) * width - 1, int(rows))
        for place, rows in enumerate(counts)
    )


def _width(span: int) -> int:
    power = 1
    while True:
        for factor in (1, 2, 5):
            if span <= factor * power * (MOST_BUCKETS - 1):
                return factor * power
        power *= 10
