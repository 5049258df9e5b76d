"""In which order reports that come together are told to a scheduler: policy.

ASHA (Li et al., 2020) promotes a trial that is in the top 1/eta of its rung so far: who comes
first is promoted whatever it has come to, and so are all where each is better than those before.
Trials of a slot come together. Told the top 1/eta of all first, from the worst of it to the best,
ASHA decides as successive halving does, which has to wait for a whole rung.
"""

from collections.abc import Sequence
from math import ceil
from typing import Protocol

from raylora.config.sweep_spec import Mode, Scheduler, SearchSpec
from raylora.sweeps.orders import TrialReport

Turns = list[list[TrialReport]]
"""Each is told when those before it have been answered."""


class ReportOrder(Protocol):
    """Remembers what it was told."""

    def noted(self, report: TrialReport) -> None:
        """A report that is told without its having been asked."""
        ...

    def turns(self, reports: Sequence[TrialReport]) -> Turns:
        """All of these, in the order in which they are to be told."""
        ...


def report_order(search: SearchSpec) -> ReportOrder:
    """What suits the scheduler."""
    if search.scheduler is Scheduler.ASHA:
        return ByRung(search.metric, search.mode, search.reduction_factor)
    return AsTheyCome()


class AsTheyCome:
    """For a scheduler to which order means nothing."""

    def noted(self, report: TrialReport) -> None:
        """Nothing to remember."""

    def turns(self, reports: Sequence[TrialReport]) -> Turns:
        """All at once."""
        return [list(reports)]


class ByRung:
    """For ASHA: of those at one step, who is to go on before who is not."""

    def __init__(self, metric: str, mode: Mode, reduction_factor: float) -> None:
        self._metric = metric
        self._sign = 1 if mode is Mode.MIN else -1
        self._factor = reduction_factor
        self._seen: dict[int, list[float]] = {}
        """By step, costs of the trials that were there."""

    def noted(self, report: TrialReport) -> None:
        """It counts among those of its step."""
        if self._metric in report.metrics:
            self._seen.setdefault(report.step, []).append(self._cost(report))

    def turns(self, reports: Sequence[TrialReport]) -> Turns:
        """What has no metric, or is over, at once; the others one by one."""
        asking = [r for r in reports if not r.state.is_over and self._metric in r.metrics]
        others = [report for report in reports if report not in asking]
        told = [[report] for step in _steps(asking) for report in self._rung(step, asking)]
        return [*([others] if others else []), *told]

    def _rung(self, step: int, reports: Sequence[TrialReport]) -> list[TrialReport]:
        here = sorted((r for r in reports if r.step == step), key=self._cost)
        for report in here:
            self.noted(report)
        known = sorted(self._seen[step])
        last = known[ceil(len(known) / self._factor) - 1]
        # Neither less nor more than `last` is a metric that is no number: it is told all the same.
        good = [report for report in here if self._cost(report) <= last]
        rest = [report for report in here if not self._cost(report) <= last]
        return [*reversed(good), *rest]

    def _cost(self, report: TrialReport) -> float:
        return self._sign * report.metrics[self._metric]


def _steps(reports: Sequence[TrialReport]) -> list[int]:
    return sorted({report.step for report in reports})
