"""A driver's run on a real SQLite store that comes, goes and comes back."""

import time

import pytest
from tests.tracking.spooling.job import RUN, adapter_of, end_of_process, worker_of

from raylora.errors import InvalidAdapter, NotAuthorised, NotFound, Unreachable
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import get_run, list_runs
from raylora.tracking.spooling.spool import segments
from raylora.tracking.spooling.sync import choose, spools, sync


def test_a_whole_run_arrives_and_leaves_nothing_behind(uri, outputs, begin) -> None:
    run = begin(lora={"r": 8})
    assert run.wait_until_known() is None
    worker = worker_of(run, outputs)
    for step in range(1, 6):
        worker.log_metrics({"loss": 1 / step}, step)
    worker.close()
    run.log_dict({"a": 1}, "spec.yaml")
    run.log_dataset("home", "bundled:home", "d" * 64, 6, "training")
    made = run.register("home", adapter_of(run, outputs), {"lora.r": "8"}, "canary", 30)
    assert made is not None
    assert made.adapter == "home@1" and set(made.aliases) == {"champion", "canary"}
    run.finish(RunStatus.FINISHED)
    assert run.settle(30) == ""

    found = get_run(uri, RUN)
    assert found.summary.mlflow_run_id == run.mlflow_run_id
    assert found.summary.status is RunStatus.FINISHED and found.summary.adapter == "home@1"
    assert found.params == {"lora.r": "8"} and found.tags["git"] == "abc"
    assert (found.metrics["loss"].points, found.metrics["loss"].last) == (5, 0.2)
    assert found.datasets[0].digest == "d" * 64
    assert found.artifacts == ["adapter/adapter_model.safetensors", "spec.yaml"]
    (folder,) = spools(outputs)
    assert segments(folder) == []
    assert list(sync(spools(outputs))) == []


def test_a_run_is_born_while_the_store_is_away_and_all_of_it_comes_later(
    uri, outputs, begin, store
) -> None:
    store.error = Unreachable("away")
    began = time.time()
    run = begin(seed=0)
    assert isinstance(run.wait_until_known(), Unreachable)
    assert run.mlflow_run_id == ""
    worker = worker_of(run, outputs)
    for step in range(1, 101):
        worker.log_metrics({"loss": 1.0}, step)
    worker.close()
    assert run.register("home", adapter_of(run, outputs), {}, None, 1) is None
    run.finish(RunStatus.FINISHED)
    assert run.settle(1) == "1 runs wait to be sent to the tracking server: away"
    with pytest.raises(NotFound):
        get_run(uri, RUN)

    store.error = None
    assert run.settle(30) == ""
    found = get_run(uri, RUN)
    assert found.metrics["loss"].points == found.metrics["loss"].last_step == 100
    assert abs(found.summary.started.timestamp() - began) < 5
    assert found.summary.status is RunStatus.FINISHED
    assert Registry(uri).resolve("home@champion").run_id == RUN
    assert len(list_runs(uri, limit=10)) == 1


def test_what_a_job_left_is_synced_by_a_command(uri, outputs, begin, store) -> None:
    store.error = Unreachable("away")
    run = begin(seed=0)
    worker_of(run, outputs).log_metrics({"loss": 1.0}, 1)
    run.register("home", adapter_of(run, outputs), {}, None, 0)
    run.finish(RunStatus.FINISHED)
    end_of_process(run)

    with pytest.raises(Unreachable):
        list(sync(spools(outputs)))
    store.error = None
    (synced,) = sync(choose(outputs, (RUN,)))
    assert (synced.status, synced.points, synced.adapter) == (RunStatus.FINISHED, 1, "home@1")
    assert get_run(uri, RUN).summary.adapter == "home@1"
    assert list(sync(spools(outputs))) == []
    with pytest.raises(NotFound) as caught:
        choose(outputs, ("20260101-120000-a1b2c4",))
    assert RUN in str(caught.value.hint)


def test_a_run_whose_driver_was_killed_is_killed_once_it_is_synced(uri, outputs, begin) -> None:
    run = begin(seed=0)
    assert run.known_within(30)
    (busy,) = sync(spools(outputs))
    assert busy.status is None  # its driver has the lock
    end_of_process(run)
    worker_of(run, outputs).log_metrics({"loss": 1.0}, 1)
    assert get_run(uri, RUN).summary.status is RunStatus.RUNNING
    (synced,) = sync(spools(outputs))
    assert synced.status is RunStatus.KILLED
    assert get_run(uri, RUN).summary.status is RunStatus.KILLED
    assert get_run(uri, RUN).metrics["loss"].points == 1


def test_a_continued_run_is_the_same_run(uri, outputs, begin) -> None:
    first = begin(seed=0)
    worker = worker_of(first, outputs)
    for step in range(1, 8):
        worker.log_metrics({"loss": 0.0}, step)
    first.finish(RunStatus.KILLED)
    assert first.settle(30) == ""
    assert get_run(uri, RUN).summary.status is RunStatus.KILLED
    again = begin(seed=0)
    worker = worker_of(again, outputs)
    for step in range(5, 11):
        worker.log_metrics({"loss": 1.0}, step)
    again.finish(RunStatus.FINISHED)
    assert again.settle(30) == ""
    found = get_run(uri, RUN)
    assert found.metrics["loss"].points == 10 and found.summary.status is RunStatus.FINISHED
    assert len(list_runs(uri, limit=10)) == 1


def test_a_trial_is_shown_below_its_sweep_however_late_both_come(
    uri, outputs, begin, store
) -> None:
    store.error = Unreachable("away")
    sweep = begin(RUN)
    trial = begin(f"{RUN}-t01", RUN)
    for run in (trial, sweep):
        run.finish(RunStatus.FINISHED)
        end_of_process(run)
    store.error = None
    assert [found.run_id for found in sync(spools(outputs))] == [RUN, f"{RUN}-t01"]
    parent = get_run(uri, f"{RUN}-t01").tags["mlflow.parentRunId"]
    assert parent == get_run(uri, RUN).summary.mlflow_run_id


def test_a_sweep_names_the_version_of_its_best_trial_whenever_that_is_made(
    uri, outputs, begin, store
) -> None:
    store.error = Unreachable("away")
    sweep, trial = begin(RUN), begin(f"{RUN}-t01", RUN)
    files = adapter_of(trial, outputs)
    assert trial.register("home", files, {}, None, 0, parent_tag="best") is None
    for run in (trial, sweep):
        run.finish(RunStatus.FINISHED)
        end_of_process(run)
    store.error = None
    assert [found.adapter for found in sync(spools(outputs))] == ["", "home@1"]
    assert get_run(uri, RUN).tags["best"] == "home@1"
    assert "best" not in get_run(uri, f"{RUN}-t01").tags


def test_what_time_does_not_mend_is_said_at_once(outputs, begin, store) -> None:
    store.error = NotAuthorised("who are you")
    with pytest.raises(NotAuthorised):
        begin().wait_until_known()
    assert spools(outputs) == []


def test_an_adapter_that_changed_since_it_was_checked_is_not_registered(
    uri, outputs, begin, store
) -> None:
    store.error = Unreachable("away")
    run = begin()
    run.register("home", adapter_of(run, outputs), {}, None, 0)
    adapter_of(run, outputs, weights=b"others")
    store.error = None
    run.finish(RunStatus.FINISHED)
    assert run.settle(30) == ""
    assert "not what it was" in str(run._sent.refused)
    assert Registry(uri).list() == []


def test_a_refused_registration_is_raised_to_the_job(outputs, begin, tmp_path) -> None:
    run = begin()
    folder = adapter_of(run, outputs)
    assert run.register("home", folder, {}, None, 30) is not None
    adapter_of(run, outputs, weights=b"others")
    with pytest.raises(InvalidAdapter):
        run.register("home", folder, {}, None, 30)
    run.finish(RunStatus.FAILED)
    run.settle(30)
