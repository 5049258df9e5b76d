import time
from pathlib import Path

import pytest

from raylora.errors import NotFound, RayloraError
from raylora.tracking.params import flatten
from raylora.tracking.run import NullRun, Run, RunStatus
from raylora.tracking.runs import attach, compare_runs, get_run, list_runs


def test_a_run_as_it_is_read_back(uri: str, start, tmp_path: Path) -> None:
    run = start(lora={"r": 8, "target_modules": ["q_proj"]}, seed=0, note=None)
    run.set_tags({"git": "abc", "workers": 2})
    for step in range(1, 4):
        run.log_metrics({"loss": 1 / step, "accuracy": step / 10}, step)
    run.log_dataset("home/train", "bundled:home/train", "d" * 64, 600, "training")
    run.log_dict({"lora": {"r": 8}}, "spec.yaml")
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "table.txt").write_text("x")
    run.log_artifacts(tables, "tables")
    run.finish(RunStatus.FINISHED)

    found = get_run(uri, run.run_id)
    assert found.summary.status is RunStatus.FINISHED
    assert found.summary.name == "quickstart"
    assert found.summary.experiment == "tests"
    assert found.summary.ended is not None
    assert found.params == {
        "lora.r": "8",
        "lora.target_modules": '["q_proj"]',
        "note": "null",
        "seed": "0",
    }
    loss, accuracy = found.metrics["loss"], found.metrics["accuracy"]
    assert (loss.last, loss.min, loss.max, loss.last_step, loss.points) == (1 / 3, 1 / 3, 1, 3, 3)
    assert (accuracy.last, accuracy.min) == (0.3, 0.1)
    assert found.tags["git"] == "abc"
    assert found.tags["workers"] == "2"
    (dataset,) = found.datasets
    assert (dataset.name, dataset.context, dataset.rows) == ("home/train", "training", 600)
    assert dataset.digest == "d" * 64
    assert dataset.source == "bundled:home/train"
    assert "spec.yaml" in found.artifacts
    assert "tables/table.txt" in found.artifacts


def test_the_same_run_by_either_id(uri: str, start) -> None:
    run = start()
    run.finish(RunStatus.FINISHED)
    assert get_run(uri, run.mlflow_run_id) == get_run(uri, run.run_id)


def test_a_restarted_training_continues_its_run(uri: str, start, stored) -> None:
    first = start(seed=0)
    for step in range(1, 11):
        first.log_metrics({"loss": float(step)}, step)
    first.finish(RunStatus.FAILED)

    again = start(seed=0)
    assert again.mlflow_run_id == first.mlflow_run_id
    assert get_run(uri, again.run_id).summary.status is RunStatus.RUNNING
    for step in range(6, 16):
        again.log_metrics({"loss": -1.0, "eval/exact_match": 0.5}, step)
    again.finish(RunStatus.FINISHED)

    assert stored(again, "loss") == [
        *((step, float(step)) for step in range(1, 11)),
        *((step, -1.0) for step in range(11, 16)),
    ]
    assert [step for step, _ in stored(again, "eval/exact_match")] == list(range(6, 16))
    assert len(list_runs(uri, limit=10)) == 1
    assert get_run(uri, again.run_id).summary.status is RunStatus.FINISHED


def test_a_worker_attaches_and_leaves_the_status_alone(uri: str, start, stored) -> None:
    run = start()
    worker = attach(uri, run.mlflow_run_id)
    assert worker.run_id == run.run_id
    worker.log_metrics({"loss": 1.0}, 1)
    worker.flush()
    assert stored(run, "loss") == [(1, 1.0)]
    worker.close()
    assert get_run(uri, run.run_id).summary.status is RunStatus.RUNNING


def test_a_killed_worker_leaves_no_duplicates(uri: str, start, stored) -> None:
    run = start()
    killed = attach(uri, run.mlflow_run_id)
    for step in range(1, 8):
        killed.log_metrics({"loss": float(step)}, step)
    killed.flush()
    replacement = attach(uri, run.mlflow_run_id)
    for step in range(5, 11):
        replacement.log_metrics({"loss": float(step)}, step)
    replacement.close()
    assert [step for step, _ in stored(run, "loss")] == list(range(1, 11))
    killed.close()


def test_params_that_changed_keep_the_first_value_and_are_noted(uri: str, start) -> None:
    start(seed=0, training={"epochs": 1.0}).close()
    start(seed=1, training={"epochs": 1.0, "max_steps": 5}).close()
    (summary,) = list_runs(uri, limit=10)
    found = get_run(uri, summary.run_id)
    assert found.params == {"seed": "0", "training.epochs": "1.0", "training.max_steps": "5"}
    assert found.tags["raylora.changed.seed"] == "1"


def test_more_parameters_than_one_request_takes(uri: str, start) -> None:
    run = start(many={f"p{i}": i for i in range(250)}, long="x" * 20_000)
    assert len(get_run(uri, run.run_id).params) == 251


@pytest.mark.parametrize("status", [RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED])
def test_how_a_run_ends(uri: str, start, status: RunStatus) -> None:
    run = start()
    run.finish(status)
    assert get_run(uri, run.run_id).summary.status is status
    assert status.terminal


def test_a_refused_point_is_told(uri: str, start) -> None:
    run = start()
    with pytest.raises(RayloraError, match="not a key"):
        run.log_metrics({"not a key: *?": 1.0}, 1)
    run.finish(RunStatus.FINISHED)
    assert get_run(uri, run.run_id).summary.status is RunStatus.FINISHED


def test_system_metrics_carry_the_node_and_go_on_after_a_restart(
    uri: str, start, stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    run = start()
    key = "system/node-a/cpu_utilization_percentage"
    for samples in (1, 2):
        run.start_system_metrics("node-a")
        while len(stored(run, key)) < samples:
            time.sleep(0.05)
        run.stop_system_metrics()
    run.finish(RunStatus.FINISHED)
    steps = [step for step, _ in stored(run, key)]
    assert steps == sorted(set(steps)) and steps[-1] < 60
    found = get_run(uri, run.run_id)
    assert key in found.system_metrics
    assert not found.metrics


def test_lists_newest_first_by_experiment(uri: str, start) -> None:
    for number in range(3):
        start(run_id=f"run-{number}", experiment="one").finish(RunStatus.FINISHED)
    start(run_id="run-x", experiment="two").finish(RunStatus.KILLED)
    assert [run.run_id for run in list_runs(uri, limit=10)] == ["run-x", "run-2", "run-1", "run-0"]
    assert [run.run_id for run in list_runs(uri, experiment="one", limit=2)] == ["run-2", "run-1"]
    with pytest.raises(NotFound) as caught:
        list_runs(uri, experiment="ones", limit=2)
    assert "one" in str(caught.value.hint)


def test_runs_of_other_programs_are_not_listed(uri: str, start) -> None:
    from raylora.tracking.store import connect

    start()
    connect(uri).create_run("0", run_name="someone else's")
    assert len(list_runs(uri, limit=10)) == 1


def test_an_unknown_run_names_the_nearest(uri: str, start) -> None:
    start(run_id="20260101-120000-a1b2c3")
    with pytest.raises(NotFound) as caught:
        get_run(uri, "20260101-120000-a1b2c4")
    assert "20260101-120000-a1b2c3" in str(caught.value.hint)


def test_a_comparison_shows_what_differs_and_what_is_missing(uri: str, start) -> None:
    one = start(run_id="one", lora={"r": 8}, seed=0)
    one.log_metrics({"loss": 0.5, "accuracy": 0.9, "same": 1.0}, 1)
    one.finish(RunStatus.FINISHED)
    two = start(run_id="two", lora={"r": 16}, seed=0, extra=True)
    two.log_metrics({"loss": 0.4, "same": 1.0}, 1)
    two.finish(RunStatus.FINISHED)
    comparison = compare_runs(uri, ["one", "two"])
    assert [run.run_id for run in comparison.runs] == ["one", "two"]
    assert comparison.params == {"lora.r": ["8", "16"], "extra": [None, "true"]}
    assert comparison.metrics == {"loss": [0.5, 0.4], "accuracy": [0.9, None]}


def test_a_metric_may_be_no_number(uri: str, start) -> None:
    run = start()
    run.log_metrics({"loss": float("nan"), "grad_norm": float("inf")}, 1)
    run.finish(RunStatus.FAILED)
    assert get_run(uri, run.run_id).metrics["loss"].last != 0


def test_a_deleted_experiment_is_named(uri: str, start) -> None:
    from raylora.tracking.store import connect

    start(experiment="old").close()
    client = connect(uri)
    experiment = client.get_experiment_by_name("old")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(RayloraError, match="the experiment 'old' was deleted"):
        start(experiment="old")


def test_a_null_run_takes_everything(tmp_path: Path) -> None:
    run: Run = NullRun()
    run.log_params({"a": 1})
    run.log_metrics({"loss": 1.0}, 1)
    run.set_tags({"a": 1})
    run.log_dict({}, "x.json")
    run.log_artifacts(tmp_path, "x")
    run.log_dataset("a", "b", "c", 1, "training")
    run.start_system_metrics()
    run.stop_system_metrics()
    run.flush()
    run.close()
    run.finish(RunStatus.FAILED)
    assert run.mlflow_run_id == ""


def test_nested_parameters_get_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1e-3}, "d": True}, "e": "text", "f": ("x", 1)}) == {
        "a.b.c": "0.001",
        "a.d": "true",
        "e": "text",
        "f": '["x", 1]',
    }
