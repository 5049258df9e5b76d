"""Rows as token ids and labels, how many there are, and which of them an epoch takes."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

IGNORED: Final = -100
"""Label of a position that is not supervised; what torch's cross entropy ignores."""

Lengths: TypeAlias = NDArray[np.int32]
Weights: TypeAlias = NDArray[np.float64]
Order: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Example:
    """Token ids of one row and, at the same positions, the labels.

    The first label is always IGNORED: nothing predicts the first token, so rows can be joined end
    to end.
    """

    input_ids: list[int]
    labels: list[int]
    weights: list[float] | None = None
    """Of the loss at each position; None is 1 everywhere."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def supervised_tokens(self) -> int:
        """Positions that have a label."""
        return len(self.labels) - self.labels.count(IGNORED)

    @property
    def supervised_weight(self) -> float:
        """Sum of the weights at positions that have a label."""
        if self.weights is None:
            return float(self.supervised_tokens)
        pairs = zip(self.labels, self.weights, strict=True)
        return float(sum(weight for label, weight in pairs if label != IGNORED))


class Examples(Protocol):
    """Rows in memory or on disk, and the order an epoch takes them in."""

    @property
    def lengths(self) -> Lengths:
        """Tokens by row."""
        ...

    @property
    def supervised(self) -> Weights:
        """supervised_weight by row."""
        ...

    @property
    def digest(self) -> str:
        """sha256: the same for the same examples, wherever they are kept."""
        ...

    @property
    def epoch_size(self) -> int:
        """Rows that an epoch takes, repetitions counted; the same for every epoch."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def epoch_order(self, epoch: int, seed: int) -> Order:
        """Row numbers of one epoch in the order they are taken, epoch_size in all."""
        ...


class ListedExamples:
    """Examples in memory."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        self.lengths: Lengths = np.fromiter(map(len, examples), np.int32)
        self.supervised: Weights = np.fromiter(
            (example.supervised_weight for example in examples), np.float64
        )
        self.digest = digest_of(examples)

    @property
    def epoch_size(self) -> int:
        """Every row once."""
        return len(self._examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]

    def epoch_order(self, epoch: int, seed: int) -> Order:
        """Every row once, shuffled."""
        return shuffled(len(self), seed, epoch)


def digest_of(examples: Iterable[Example]) -> str:
    """sha256 over the examples, in their order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(bytes_of(example))
    return digest.hexdigest()


def bytes_of(example: Example) -> bytes:
    """What tells an example from others."""
    weights = [] if example.weights is None else example.weights
    parts = (
        np.array([len(example), len(weights)], np.int64),
        np.array(example.input_ids, np.int32),
        np.array(example.labels, np.int32),
        np.array(weights, np.float32),
    )
    return b"".join(part.tobytes() for part in parts)


def shuffled(rows: int, *seeds: int) -> Order:
    """A permutation that depends on the numbers given and on nothing else."""
    return np.random.default_rng(seeds).permutation(rows)
