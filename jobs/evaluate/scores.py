"""From results of rows to the scores of a subject on a data set, with intervals."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raylora.config.metric import Metric
from raylora.jobs.evaluate.row_result import RowResult
from raylora.tracking.bootstrap import bootstrap


@dataclass(frozen=True)
class Score:
    """One metric of one subject on one data set."""

    dataset: str
    subject: str
    metric: str
    rows: int
    """That have a value; the others say nothing of the mean."""
    mean: float | None
    """None where no row has a value: missing, which is not zero."""
    low: float | None
    high: float | None
    """The bootstrap's 95 % interval."""


@dataclass(frozen=True)
class Unasked:
    """A row that the model could not be asked."""

    dataset: str
    file: str
    line: int
    reason: str


def scores_of(results: Sequence[RowResult], metrics: Sequence[str]) -> list[Score]:
    """All metrics of all subjects on one data set, subjects in their order."""
    subjects = dict.fromkeys(result.subject for result in results)
    return [
        _score([result for result in results if result.subject == subject], metric)
        for subject in subjects
        for metric in metrics
    ]


def unasked_of(results: Sequence[RowResult]) -> list[Unasked]:
    """Each row that was not asked, once."""
    found = {r.place: r.unasked for r in results if r.unasked}
    return [Unasked(*place, reason) for place, reason in found.items()]


def weighed(result: RowResult, metric: str) -> tuple[float, float] | None:
    """A row's score and its weight; None where there is none.

    A loss is a mean over tokens, so that a long answer counts more than a short one.
    """
    value = result.scores.get(metric)
    if value is None or result.unasked:
        return None
    return value, float(result.reference_tokens or 1) if metric == Metric.LOSS else 1.0


def _score(results: Sequence[RowResult], metric: str) -> Score:
    measured = Metric.LOSS if metric == Metric.PERPLEXITY else metric
    found = list(_weighed(results, measured))
    name, subject = results[0].dataset, results[0].subject
    if not found:
        return Score(name, subject, metric, 0, None, None, None)
    values, weights = zip(*found, strict=True)
    interval = bootstrap(values, weights)
    figures = (interval.mean, interval.low, interval.high)
    if metric == Metric.PERPLEXITY:
        figures = tuple(_exp(figure) for figure in figures)
    return Score(name, subject, metric, interval.rows, *figures)


def _weighed(results: Sequence[RowResult], metric: str) -> Iterator[tuple[float, float]]:
    for result in results:
        pair = weighed(result, metric)
        if pair is not None:
            yield pair


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf
