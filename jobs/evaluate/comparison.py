"""Two subjects on the same rows: who wins which, and is the difference more than chance?"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from raylora.config.evaluate_spec import BASE, AskedSpec
from raylora.config.metric import Metric, lower_is_better
from raylora.jobs.evaluate.row_result import RowResult
from raylora.jobs.evaluate.scores import weighed
from raylora.tracking.bootstrap import Interval, paired_bootstrap

FEWEST = 10
"""Rows below which the bootstrap's interval is too narrow to decide anything."""


class Verdict(StrEnum):
    """What the interval of a difference says."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "no difference shown"

    @property
    def is_forgetting(self) -> bool:
        """On a general data set, against the base."""
        return self is Verdict.WORSE


@dataclass(frozen=True)
class Comparison:
    """A subject against an earlier one, by one metric on one data set."""

    dataset: str
    metric: str
    subject: str
    against: str
    rows: int
    """That both have a score of."""
    difference: float
    """subject - against, of the means."""
    low: float
    high: float
    """95 % interval of the paired bootstrap."""
    wins: int
    losses: int
    ties: int
    regressions: int | None
    """Rows that were right and are not any more; None for a loss, which is never right."""
    verdict: Verdict
    general: bool
    """Whether the data set is not what the adapters were made for."""

    @property
    def forgetting(self) -> bool | None:
        """Whether the base knew better; None where this is no check of that."""
        if not self.general or self.against != BASE:
            return None
        return self.verdict.is_forgetting


@dataclass(frozen=True)
class Pair:
    """One row of a comparison: the scores of the subject and of the one before it."""

    subject: RowResult
    against: RowResult
    metric: str
    value: float
    other: float
    weight: float
    """The same for both: a loss weighs by the tokens of the reference."""

    @property
    def gain(self) -> float:
        """How much better the subject is; negative where it is worse."""
        difference = self.value - self.other
        return -difference if lower_is_better(self.metric) else difference

    @property
    def is_regression(self) -> bool:
        """Whether the other one was right, and the subject is not."""
        return self.other >= 1 > self.value


def compare(
    results: Sequence[RowResult], dataset: AskedSpec, metrics: Sequence[str]
) -> list[Comparison]:
    """Every subject with each one before it, perplexity by the loss that it follows.

    Metrics that two share no row of are left out.
    """
    measured = dict.fromkeys(
        Metric.LOSS if name == Metric.PERPLEXITY else name for name in metrics
    )
    subjects = dict.fromkeys(result.subject for result in results)
    return [
        _compared(pairs, dataset)
        for against, subject in combinations(subjects, 2)
        for metric in measured
        if (pairs := pairs_of(results, subject, against, metric))
    ]


def pairs_of(results: Sequence[RowResult], subject: str, against: str, metric: str) -> list[Pair]:
    """Rows that both subjects have a score of, in their order."""
    mine = {result.place: result for result in results if result.subject == subject}
    pairs: list[Pair] = []
    for other in results:
        if other.subject != against or other.place not in mine:
            continue
        found, theirs = weighed(mine[other.place], metric), weighed(other, metric)
        if found is not None and theirs is not None:
            pairs.append(Pair(mine[other.place], other, metric, found[0], theirs[0], found[1]))
    return pairs


def regressed(pairs: Sequence[Pair]) -> list[Pair]:
    """The rows to look at: those that got worse, the worst first."""
    return sorted((pair for pair in pairs if pair.gain < 0), key=lambda pair: pair.gain)


def _compared(pairs: Sequence[Pair], dataset: AskedSpec) -> Comparison:
    first = pairs[0]
    metric = first.metric
    interval = paired_bootstrap(
        [pair.value for pair in pairs],
        [pair.other for pair in pairs],
        [pair.weight for pair in pairs],
    )
    return Comparison(
        dataset=dataset.label,
        metric=metric,
        subject=first.subject.subject,
        against=first.against.subject,
        rows=interval.rows,
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        wins=sum(pair.gain > 0 for pair in pairs),
        losses=sum(pair.gain < 0 for pair in pairs),
        ties=sum(pair.gain == 0 for pair in pairs),
        regressions=None if lower_is_better(metric) else sum(p.is_regression for p in pairs),
        verdict=_verdict(interval, metric),
        general=dataset.general,
    )


def _verdict(interval: Interval, metric: str) -> Verdict:
    low, high = interval.low, interval.high
    if low <= 0 <= high or interval.rows < FEWEST:
        return Verdict.OPEN
    return Verdict.BETTER if (low > 0) != lower_is_better(metric) else Verdict.WORSE
