"""Trials with workers of their own wait for their orders and their turn; no cluster."""

import time
from collections.abc import Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from raylora.config.sweep_rules import with_settings
from raylora.config.train_spec import TrainSpec
from raylora.sweeps import executors as module
from raylora.sweeps.executors import Executors
from raylora.sweeps.orders import Begin, End, Order, TrialReport, TrialState
from raylora.sweeps.planner import FusedSlot, Plan

BASE = TrainSpec()
DORA = with_settings(BASE, {"lora.use_dora": True})


class Box:
    """A mailbox with orders by slot, whose calls are answered at once."""

    def __init__(self) -> None:
        self.orders: dict[str, list[Order]] = {}
        self.reports: list[TrialReport] = []
        self.exchange = SimpleNamespace(remote=self._exchange)

    def _exchange(self, slot: str, reports: list[TrialReport], idle: bool) -> list[Order]:
        time.sleep(0.01 if idle else 0)
        self.reports += reports
        return self.orders.pop(slot, [])


class Runs:
    """Runs of trials that last until they are released."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.release = Event()

    def __call__(self, begin: Begin, mailbox: Any) -> TrialReport:
        self.begun.append(begin.name)
        assert self.release.wait(10)
        return TrialReport(begin.name, TrialState.FINISHED, 10)


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr(module.ray, "get", lambda answer: answer)
    monkeypatch.setattr(module, "TURN_S", 0.01)
    return Box()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(module, "run_isolated", runs)
    return runs


def executors(box: Box, isolated_at_once: int) -> Executors:
    plan = Plan((FusedSlot("fused-1", BASE.workers, 4),), isolated_at_once, 4, ())
    return Executors(plan, SimpleNamespace(spec=BASE), box)  # type: ignore[arg-type]


def trial(name: str, spec: TrainSpec = DORA) -> Begin:
    return Begin(name, SimpleNamespace(spec=spec), "loss", 5)  # type: ignore[arg-type]


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def take(here: Executors, trial: Begin) -> str:
    return here.slot_of(trial.name, trial.assignment.spec)


def test_what_can_share_is_left_to_the_shared_slots(box: Box, runs: Runs):
    here = executors(box, isolated_at_once=1)
    assert take(here, trial("t01", BASE)) == "fused-1"
    here.join()
    assert runs.begun == []


def test_a_trial_trains_when_it_is_ordered_to_and_reports_its_end(box: Box, runs: Runs):
    here = executors(box, isolated_at_once=1)
    assert take(here, trial("t01")) == "t01"
    time.sleep(0.05)
    assert runs.begun == []
    box.orders["t01"] = [trial("t01")]
    runs.release.set()
    here.join()
    assert box.reports == [TrialReport("t01", TrialState.FINISHED, 10)]


def test_trials_wait_for_their_turn_and_may_be_ended_meanwhile(box: Box, runs: Runs):
    here = executors(box, isolated_at_once=1)
    for name in ("t01", "t02", "t03"):
        box.orders[name] = [trial(name)]
        take(here, trial(name))
        until(lambda name=name: name not in box.orders)
    until(lambda: len(runs.begun) == 1)
    waiting = sorted({"t01", "t02", "t03"} - set(runs.begun))
    box.orders[waiting[0]] = [End(waiting[0])]
    until(lambda: not box.orders)
    runs.release.set()
    here.join()
    assert waiting[0] not in runs.begun and len(runs.begun) == 2


def test_a_trial_begins_again_when_its_workers_have_left(box: Box, runs: Runs):
    here = executors(box, isolated_at_once=1)
    runs.release.set()
    box.orders["t01"] = [trial("t01")]
    take(here, trial("t01"))
    until(lambda: len(box.reports) == 1)
    box.orders["t01"] = [trial("t01")]
    assert here.again("t01", DORA) == "t01"
    here.join()
    assert runs.begun == ["t01", "t01"] and len(box.reports) == 2


def test_a_trial_that_is_over_by_the_records_is_never_started(box: Box, runs: Runs):
    here = executors(box, isolated_at_once=1)
    take(here, trial("t01"))
    box.orders["t01"] = [End("t01")]
    here.join()
    assert runs.begun == [] and box.reports == []
