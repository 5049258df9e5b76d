"""A slot: one base on the workers of one Ray Train run, and the trials that train on it.

Every worker runs the same loop. The first one asks for orders; the others follow it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import distributed as dist

from raylora.config.train_spec import TrainSpec
from raylora.errors import JobFailed, RayloraError
from raylora.jobs.data.training_data import TrainingData
from raylora.jobs.run_log import RunLog
from raylora.jobs.saving import save_trained
from raylora.jobs.train import collective
from raylora.jobs.train.checkpoint import Checkpoints
from raylora.jobs.train.loop import Setup, train
from raylora.jobs.train.outcome import Outcome
from raylora.sweeps.bench import Bench
from raylora.sweeps.fused.conductor import Conductor, Finished, Permission
from raylora.sweeps.fused.player import Player
from raylora.sweeps.fused.shared_passes import TrialPasses
from raylora.sweeps.orders import (
    Begin,
    Close,
    End,
    GoOn,
    Orders,
    Threads,
    TrialReport,
    TrialState,
)
from raylora.sweeps.trial import NoLog, Progress, TrialObserver


def run_slot(spec: TrainSpec, orders: Orders) -> None:
    """Train trials of `spec` as ordered, until the slot is closed. The process group is there."""
    bench = Bench.of(spec)
    slot = _Slot(bench, Conductor(bench.bank.passes))
    reports: list[TrialReport] = []
    first = dist.get_rank() == 0
    if first:
        orders.opened()
    while True:
        given = collective.from_first(orders.exchange(reports, slot.idle) if first else ())
        reports = []
        for order in given:
            match order:
                case Begin():
                    slot.begin(order)
                case GoOn(name):
                    reports += slot.go_on(name)
                case End(name):
                    reports += slot.end(name)
                case Threads(count):
                    torch.set_num_threads(count)
                case Close():
                    slot.close()
                    return
        reports += slot.round()


class _Slot:
    """Orders and reports in the conductor's words."""

    def __init__(self, bench: Bench, conductor: Conductor) -> None:
        self._bench = bench
        self._conductor = conductor
        self._progress: dict[str, Callable[[], Progress]] = {}
        self._told: set[str] = set()
        """Trials that wait, and whose report was handed over."""

    @property
    def idle(self) -> bool:
        """Whether nothing happens without an order."""
        return not self._conductor.runnable

    def begin(self, order: Begin) -> None:
        self._conductor.join(order.name, lambda player: self._play(order, player))

    def go_on(self, name: str) -> list[TrialReport]:
        self._told.discard(name)
        return self._over(self._conductor.permit(name))

    def end(self, name: str) -> list[TrialReport]:
        if name not in self._conductor.names:  # its last report crossed the order
            return []
        self._told.discard(name)
        return self._over(self._conductor.stop(name))

    def close(self) -> None:
        for name in self._conductor.names:
            self._conductor.stop(name)

    def round(self) -> list[TrialReport]:
        """Reports of the trials that are over now, and of those that wait now."""
        reports = [] if self.idle else self._over(self._conductor.round())
        for name, progress in self._conductor.waiting.items():
            if name not in self._told:
                self._told.add(name)
                reports.append(_report(name, TrialState.WAITING, progress))
        return reports

    def _play(self, order: Begin, player: Player) -> None:
        spec, places = order.assignment.spec, order.assignment.places
        with _log_of(order) as log:
            observer = TrialObserver(order, lambda p: player.ask(Permission(p)), log)
            self._progress[order.name] = lambda: observer.progress
            try:
                with _alike_on_all():
                    passes = TrialPasses(player, order.name)
                    data, setup = collective.agreed(lambda: self._prepare(order, passes))
                    checkpoints = Checkpoints(places.checkpoints, spec.training.keep_checkpoints)
                    outcome = train(setup, observer, checkpoints)
                if dist.get_rank() == 0:
                    self._save(order, data, outcome)
            finally:
                self._bench.bank.leave(order.name)

    def _prepare(self, order: Begin, passes: TrialPasses) -> tuple[TrainingData, Setup]:
        spec = order.assignment.spec
        try:
            data = self._bench.data(spec)
            backend = self._bench.bank.enter(order.name, spec, passes)
            return data, self._bench.setup(spec, backend, data)
        except RayloraError:
            raise
        except Exception as error:
            raise JobFailed(_said(error)) from error

    def _save(self, order: Begin, data: TrainingData, outcome: Outcome) -> None:
        recording = self._bench.record(order.name, data)
        trained = self._bench.trained(order.name, data, recording)
        save_trained(order.assignment, trained, outcome)

    def _over(self, finished: Sequence[Finished]) -> list[TrialReport]:
        reports: list[TrialReport] = []
        for trial in finished:
            if isinstance(trial.ended.error, _OutOfStep):
                raise trial.ended.error
            progress = self._progress.pop(trial.name, lambda: Progress(0, {}))()
            state, why = _end_of(trial)
            reports.append(_report(trial.name, state, progress, why))
        return reports


class _OutOfStep(Exception):
    """A trial failed in a way that other workers may know nothing of."""


@contextmanager
def _alike_on_all() -> Iterator[None]:
    """Within, a RayloraError is raised by all workers or by none.

    Anything else may be this worker's alone, and others would wait for it: it ends the slot, and
    Ray Train begins again from the trials' checkpoints.
    """
    try:
        yield
    except RayloraError:
        raise
    except Exception as error:
        if dist.get_world_size() == 1:
            raise
        raise _OutOfStep(_said(error)) from error


@contextmanager
def _log_of(order: Begin) -> Iterator[RunLog | NoLog]:
    log = RunLog(order.assignment) if dist.get_rank() == 0 else NoLog()
    try:
        yield log
    finally:
        log.close()


def _end_of(trial: Finished) -> tuple[TrialState, str]:
    error = trial.ended.error
    if error is None:
        return TrialState.FINISHED, ""
    if trial.was_stopped:
        return TrialState.STOPPED, ""
    return TrialState.FAILED, _said(error)


def _said(error: BaseException) -> str:
    return error.message if isinstance(error, RayloraError) else f"{type(error).__name__}: {error}"


def _report(name: str, state: TrialState, progress: Progress, error: str = "") -> TrialReport:
    return TrialReport(name, state, progress.step, progress.metrics, error)
