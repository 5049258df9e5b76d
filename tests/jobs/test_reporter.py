"""The first worker's observer, with a real MLflow store and real event files."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raylora.cluster.events import emit
from raylora.config.places import run_dir
from raylora.config.train_spec import TrainSpec
from raylora.jobs.assignment import Assignment
from raylora.jobs.attempts import Attempts
from raylora.jobs.reporter import Reporter
from raylora.jobs.run_log import METRICS, VALIDATIONS
from raylora.jobs.tracker import TENSORBOARD
from raylora.jobs.train.observer import StepReport
from raylora.jobs.train.validation import Validation
from raylora.tracking.runs import get_run, open_run

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
def assignment(tmp_path: Path) -> Assignment:
    spec = TrainSpec.model_validate(
        {
            "model": {"source": "path", "id": str(tmp_path), "name": "tiny"},
            "data": {"train": str(tmp_path / "train.jsonl")},
            "tracking": {"system_metrics": False},
        }
    )
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run = open_run(uri, "e", "r", "tiny", params={}, tags={})
    places = run_dir(str(tmp_path), "e", "r")
    places.metadata.mkdir(parents=True)
    return Assignment(spec, "r", run.mlflow_run_id, uri, places)


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


def test_what_a_killed_worker_had_not_sent_is_sent_by_the_next(assignment: Assignment):
    # The lines of four steps were written, and MLflow got none of their points.
    logs = assignment.places.logs
    logs.mkdir(parents=True)
    lines = [json.dumps(asdict(replace(REPORT, step=step))) for step in range(1, 5)]
    (logs / METRICS).write_text("\n".join(lines) + '\n{"step": 5, "lo', encoding="utf-8")
    look = asdict(Validation(2, 1.5, {"exact_match": 0.5})) | {"best": True}
    (logs / VALIDATIONS).write_text(json.dumps(look) + "\n", encoding="utf-8")

    reporter = begin(assignment, 3)
    report(reporter, range(4, 7))
    reporter.close()

    run = get_run(assignment.tracking_uri, "r")
    assert run.metrics["loss"].points == run.metrics["loss"].last_step == 6
    assert run.metrics["validation_loss"].last_step == 2
    assert run.metrics["validation_exact_match"].last == 0.5
    assert drawn(assignment, "loss") == [1, 2, 3, 4, 5, 6]
    written = (logs / METRICS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in written] == [1, 2, 3, 4, 5, 6]


def test_steps_done_again_are_logged_once(assignment: Assignment):
    first = begin(assignment, 0)
    report(first, range(1, 5))
    first.close()
    second = begin(assignment, 2)
    report(second, range(3, 7))
    second.close()

    run = get_run(assignment.tracking_uri, "r")
    assert run.metrics["loss"].points == 6
    assert drawn(assignment, "loss") == [1, 2, 3, 4, 5, 6]
