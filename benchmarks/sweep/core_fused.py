"""Trials that share a base in a slot, driven by a script of orders in place of Ray Tune."""

import gc
import threading
from collections.abc import Sequence

from raylora.config.sweep_spec import LOSS
from raylora.errors import JobFailed
from raylora.jobs.assignment import Assignment
from raylora.sweeps.fused.trial_bank import TrialBank
from raylora.sweeps.orders import Begin, Close, End, GoOn, Order, TrialReport, TrialState
from raylora.sweeps.slot import run_slot

AT_ONCE = 8
"""Trials in the slot where each is ended."""


def train_fused(trials: Sequence[Assignment]) -> None:
    """Train all of them to the end. Raises JobFailed where one fails."""
    script = _ToTheEnd([_begin(trial, _steps(trial)) for trial in trials])
    run_slot(trials[0].spec, script)
    _require(script.over, TrialState.FINISHED)


def stop_each(trials: Sequence[Assignment]) -> int:
    """Begin them one after another and end each at its first report, after its first step.

    Returns how many adapters and threads of them are left in the slot then. Raises JobFailed where
    one fails.
    """
    script = _Stopping([_begin(trial, 1) for trial in trials])
    run_slot(trials[0].spec, script)
    _require(script.over, TrialState.STOPPED)
    return script.left


class _ToTheEnd:
    """Orders that begin all trials at once and hold none of them up."""

    def __init__(self, trials: Sequence[Begin]) -> None:
        self.over: dict[str, TrialReport] = {}
        """Last reports."""
        self._fresh = list(trials)
        self._names = {trial.name for trial in trials}

    def opened(self) -> None:
        """See Orders: nothing of this slot's is ever lost."""

    def exchange(self, reports: Sequence[TrialReport], idle: bool) -> Sequence[Order]:
        """See Orders."""
        orders: list[Order] = [*self._fresh]
        self._fresh = []
        for report in reports:
            if report.state.is_over:
                self.over[report.name] = report
            else:
                orders.append(GoOn(report.name))
        return [*orders, Close()] if self._names == self.over.keys() else orders


class _Stopping:
    """Orders that end each trial at its first report; the next one takes its place."""

    def __init__(self, trials: Sequence[Begin]) -> None:
        self.over: dict[str, TrialReport] = {}
        """Last reports."""
        self.left = 0
        self._fresh = list(trials)
        self._names = {trial.name for trial in trials}
        self._inside = 0

    def opened(self) -> None:
        """See Orders: nothing of this slot's is ever lost."""

    def exchange(self, reports: Sequence[TrialReport], idle: bool) -> Sequence[Order]:
        """See Orders."""
        orders: list[Order] = []
        for report in reports:
            if report.state.is_over:
                self.over[report.name] = report
                self._inside -= 1
            else:
                orders.append(End(report.name))
        while self._fresh and self._inside < AT_ONCE:
            orders.append(self._fresh.pop(0))
            self._inside += 1
        if self._names != self.over.keys():
            return orders
        self.left = _adapters() + sum(t.name in self._names for t in threading.enumerate())
        return [Close()]


def _adapters() -> int:
    """In the banks of this process."""
    return sum(len(found.adapters) for found in gc.get_objects() if isinstance(found, TrialBank))


def _begin(trial: Assignment, report_steps: int) -> Begin:
    return Begin(trial.run_id, trial, LOSS, report_steps)


def _steps(trial: Assignment) -> int:
    """Nobody asks between the first step and the last."""
    assert trial.spec.training.max_steps is not None
    return trial.spec.training.max_steps


def _require(reports: dict[str, TrialReport], state: TrialState) -> None:
    for name, report in reports.items():
        if report.state is not state:
            raise JobFailed(f"trial {name} {report.state}: {report.error}")
