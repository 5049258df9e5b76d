"""Runs whose job was stopped: all of them KILLED, whoever is left to say so."""

from pathlib import Path

import pytest
from tests.tracking.spooling.job import RUN, end_of_process, worker_of

from raylora.errors import NotFound, RayloraError, Unreachable
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import get_run
from raylora.tracking.spooling.closing import close
from raylora.tracking.spooling.sync import spools, sync

TRIAL = f"{RUN}-t01"
OVER = f"{RUN}-t02"


def test_what_a_driver_had_no_time_to_say_is_said_through_its_spool(uri, outputs, begin) -> None:
    sweep, trial, over = begin(RUN), begin(TRIAL, RUN), begin(OVER, RUN)
    other = begin("20260101-120000-ffffff")
    over.finish(RunStatus.FINISHED)
    assert all(run.known_within(30) for run in (sweep, trial, other)) and over.settle(30) == ""
    for run in (sweep, trial):
        end_of_process(run)
    worker_of(trial, outputs).log_metrics({"loss": 1.0}, 7)
    close(outputs, RUN, "")
    statuses = {run_id: get_run(uri, run_id).summary.status for run_id in (RUN, TRIAL, OVER)}
    assert statuses == {
        RUN: RunStatus.KILLED,
        TRIAL: RunStatus.KILLED,
        OVER: RunStatus.FINISHED,
    }
    assert get_run(uri, TRIAL).metrics["loss"].last_step == 7
    assert get_run(uri, other.run_id).summary.status is RunStatus.RUNNING
    assert [left.run_id for left in sync(spools(outputs))] == [other.run_id]


def test_a_run_that_told_its_end_itself_costs_no_request(outputs, begin, store) -> None:
    run = begin()
    run.finish(RunStatus.KILLED)
    assert run.settle(30) == ""
    store.error = Unreachable("away")
    close(outputs, RUN, "")


def test_a_run_that_is_still_sent_is_left_alone(uri, outputs, begin) -> None:
    assert begin().known_within(30)
    with pytest.raises(RayloraError, match="still being sent"):
        close(outputs, RUN, "")
    assert get_run(uri, RUN).summary.status is RunStatus.RUNNING


def test_outputs_of_another_machine_leave_the_store_to_be_told(uri, outputs, begin) -> None:
    sweep, trial = begin(RUN), begin(TRIAL, RUN)
    for run in (sweep, trial):
        assert run.known_within(30)
        end_of_process(run)
    over_there = Path("/not/here")
    with pytest.raises(NotFound):
        close(over_there, RUN, "")
    close(over_there, RUN, uri)
    close(over_there, "never-opened", uri)
    for run_id in (RUN, TRIAL):
        assert get_run(uri, run_id).summary.status is RunStatus.KILLED


def test_a_spool_that_is_sent_after_its_job_does_not_begin_the_run_again(
    uri, outputs, begin, store, monkeypatch
) -> None:
    first = begin()
    first.finish(RunStatus.KILLED)
    assert first.settle(30) == ""
    end_of_process(first)
    store.error = Unreachable("away")
    again = begin()  # resumed, and stopped before anybody heard of it
    courier = again._courier
    assert courier.wait(lambda: isinstance(courier.error, Unreachable), 30)
    worker_of(again, outputs).log_metrics({"loss": 1.0}, 1)
    end_of_process(again)
    store.error = None
    told = record_statuses(monkeypatch)
    (synced,) = sync(spools(outputs))
    assert told == [RunStatus.KILLED] and synced.points == 1
    assert get_run(uri, RUN).summary.status is RunStatus.KILLED


def record_statuses(monkeypatch: pytest.MonkeyPatch) -> list[RunStatus]:
    """What the store is told from now on."""
    from raylora.tracking.mlflow_run import MlflowRun

    told: list[RunStatus] = []
    stand = MlflowRun.stand

    def recorded(run: MlflowRun, status: RunStatus, time_ms: int | None = None) -> None:
        told.append(status)
        stand(run, status, time_ms)

    monkeypatch.setattr(MlflowRun, "stand", recorded)
    return told
