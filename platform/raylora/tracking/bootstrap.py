"""How sure a mean over rows is, and the difference of two on the same rows: the bootstrap.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals. Rows are drawn
anew with replacement; two systems on the same rows are drawn together, so what makes a row hard
for both does not widen the interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
_CELLS = 4_000_000
"""Counts held at a time: 32 MB."""


@dataclass(frozen=True)
class Interval:
    """A mean over rows, and where it lies in the middle `confidence` of the resamples."""

    rows: int
    mean: float
    low: float
    high: float


def bootstrap(
    values: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """The mean of one number a row, by `weights` where rows count differently (tokens of a loss).

    The same input gives the same interval. Raises ValueError without rows.
    """
    import numpy as np

    if not len(values):
        raise ValueError("there is no row to draw from")
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    rows = np.stack([np.asarray(values, dtype=float) * weight, weight], axis=1)
    # Drawing n rows is drawing how often each kind of row comes: scores have few kinds.
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    random = np.random.default_rng(seed)
    means: list[NDArray[Any]] = []
    step = max(1, _CELLS // len(kinds))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = random.multinomial(len(rows), counts / len(rows), size=size)
        sums = drawn @ kinds
        means.append(sums[:, 0] / sums[:, 1])
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    mean = rows[:, 0].sum() / rows[:, 1].sum()
    return Interval(len(rows), float(mean), float(low), float(high))


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """The mean of a - b over rows that both have: a[i] and b[i] are of the same row.

    Raises ValueError without rows, or where the two have not as many.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return bootstrap(differences, weights, resamples=resamples, confidence=confidence, seed=seed)
