"""Several sets of examples as one, each seen as often as its weight says."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from raylora.jobs.data.examples import Example, Examples, Lengths, Order, Weights, shuffled


class MixedExamples:
    """The rows of all parts, one part after the other.

    An epoch takes weight times the rows of a part (at least one) off an endless stream of passes
    over it, each pass shuffled anew. So weight 2 sees each row twice an epoch, and weight 0.5
    another half of them in each of two epochs.
    """

    def __init__(self, parts: Sequence[tuple[Examples, float]]) -> None:
        self._parts = tuple(examples for examples, _ in parts)
        self._takes = tuple(max(1, round(weight * len(rows))) for rows, weight in parts)
        self._starts = tuple(accumulate((len(part) for part in self._parts), initial=0))
        self.lengths: Lengths = np.concatenate([part.lengths for part in self._parts])
        self.supervised: Weights = np.concatenate([part.supervised for part in self._parts])
        self.digest = _digest(self._parts, self._takes)

    @property
    def epoch_size(self) -> int:
        """Rows that an epoch takes, repetitions counted."""
        return sum(self._takes)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Example:
        part = bisect_right(self._starts, index) - 1
        return self._parts[part][index - self._starts[part]]

    def epoch_order(self, epoch: int, seed: int) -> Order:
        """Row numbers of one epoch, all parts shuffled together."""
        taken = np.concatenate(
            [self._taken(part, epoch, seed) for part in range(len(self._takes))]
        )
        return taken[shuffled(len(taken), seed, epoch)]

    def _taken(self, part: int, epoch: int, seed: int) -> Order:
        """What the epoch takes off the part's stream of passes."""
        rows, take = len(self._parts[part]), self._takes[part]
        first, last = epoch * take, (epoch + 1) * take
        passes = range(first // rows, (last - 1) // rows + 1)
        stream = np.concatenate([shuffled(rows, seed, part, number) for number in passes])
        skipped = passes.start * rows
        return stream[first - skipped : last - skipped] + self._starts[part]


def _digest(parts: Sequence[Examples], takes: Sequence[int]) -> str:
    said = "/".join(f"{part.digest}:{take}" for part, take in zip(parts, takes, strict=True))
    return hashlib.sha256(said.encode()).hexdigest()
