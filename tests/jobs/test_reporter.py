"""The first worker's observer, with a real MLflow store and real event files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raylora.cluster.events import emit
from raylora.config.places import run_dir
from raylora.config.train_spec import TrainSpec
from raylora.jobs.assignment import Assignment
from raylora.jobs.attempts import Attempts
from raylora.jobs.reporter import Reporter
from raylora.jobs.run_log import METRICS
from raylora.jobs.tracker import TENSORBOARD
from raylora.jobs.train.observer import StepReport
from raylora.jobs.train.validation import Validation
from raylora.tracking.runs import get_run
from raylora.tracking.spooling.tracked import TrackedRun, start

REPORT = StepReport(
    step=1,
    total_steps=6,
    loss=2.0,
    learning_rate=1e-3,
    grad_norm=1.0,
    tokens_per_second=100.0,
    supervised_tokens_per_second=50.0,
    mfu=0.5,
    memory_bytes=1000,
    worker_memory_bytes=[1000],
    eta_seconds=1.0,
)


@pytest.fixture
def run(tmp_path: Path, empty_store: Path) -> TrackedRun:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    places = run_dir(str(tmp_path), "e", "r")
    places.metadata.mkdir(parents=True)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return start(uri, "e", "r", "tiny", places.tracking, params={}, tags={})


@pytest.fixture
def assignment(tmp_path: Path, run: TrackedRun) -> Assignment:
    spec = TrainSpec.model_validate(
        {
            "model": {"source": "path", "id": str(tmp_path), "name": "tiny"},
            "data": {"train": str(tmp_path / "train.jsonl")},
            "tracking": {"system_metrics": False},
        }
    )
    places = run_dir(str(tmp_path), "e", "r")
    return Assignment(spec, "r", "", f"sqlite:///{tmp_path}/mlflow.db", places)


def begin(assignment: Assignment, step: int) -> Reporter:
    reporter = Reporter(assignment, Attempts(assignment.places), 1, emit)
    reporter.resumed(step)
    return reporter


def report(reporter: Reporter, steps: range) -> None:
    for step in steps:
        reporter.stepped(replace(REPORT, step=step))


def drawn(assignment: Assignment, name: str) -> list[int]:
    files = EventAccumulator(str(assignment.places.logs / TENSORBOARD))
    return [event.step for event in files.Reload().Scalars(name)]


def test_a_killed_worker_takes_nothing_with_it(assignment: Assignment, run: TrackedRun):
    logs = assignment.places.logs
    killed = begin(assignment, 0)
    report(killed, range(1, 5))
    killed.validated(Validation(2, 1.5, {"exact_match": 0.5}), best=True)
    with (logs / METRICS).open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')

    reporter = begin(assignment, 3)
    report(reporter, range(4, 7))
    reporter.close()

    assert run.settle(30) == ""
    found = get_run(assignment.tracking_uri, "r")
    assert found.metrics["loss"].points == found.metrics["loss"].last_step == 6
    assert found.metrics["validation_loss"].last_step == 2
    assert found.metrics["validation_exact_match"].last == 0.5
    assert drawn(assignment, "loss") == [1, 2, 3, 4, 5, 6]
    written = (logs / METRICS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in written] == [1, 2, 3, 4, 5, 6]


def test_steps_done_again_are_logged_once(assignment: Assignment, run: TrackedRun):
    first = begin(assignment, 0)
    report(first, range(1, 5))
    first.close()
    second = begin(assignment, 2)
    report(second, range(3, 7))
    second.close()

    assert run.settle(30) == ""
    assert get_run(assignment.tracking_uri, "r").metrics["loss"].points == 6
    assert drawn(assignment, "loss") == [1, 2, 3, 4, 5, 6]
