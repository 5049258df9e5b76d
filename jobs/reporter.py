"""What the first worker tells the world: events for the log, JSON lines, MLflow, TensorBoard."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train

from raylora.cluster.events import (
    NoticeEvent,
    RestartEvent,
    StageEvent,
    StepEvent,
    ValidationEvent,
    emit,
)
from raylora.jobs.assignment import Assignment
from raylora.jobs.attempts import Attempts
from raylora.jobs.tracker import Tracker
from raylora.jobs.train.observer import StepReport
from raylora.jobs.train.validation import Validation
from raylora.lora import atomic

METRICS = "metrics.jsonl"
"""In the run's logs: one line a logging interval, each step once."""
VALIDATIONS = "validations.jsonl"
"""In the run's logs: one line a look at held-out rows."""


class Follower:
    """A worker that is not the first: takes part in Ray's barrier at checkpoints."""

    def resumed(self, step: int) -> None:
        """Nothing to say."""

    def stepped(self, report: StepReport) -> None:
        """Nothing to say."""

    def validated(self, validation: Validation, best: bool) -> None:
        """Nothing to say."""

    def warned(self, text: str) -> None:
        """Nothing to say."""

    def backed_off(self, micro_batch_size: int) -> None:
        """Nothing to say."""

    def saved(self, step: int, checkpoint: Path) -> None:
        """Meet the other workers."""
        ray.train.report({"step": step})

    def close(self) -> None:
        """Nothing to close."""


class Reporter:
    """The first worker's observer."""

    def __init__(self, assignment: Assignment, attempts: Attempts, micro_batch_size: int) -> None:
        """`micro_batch_size` is what this attempt begins with."""
        self._logs = assignment.places.logs
        self._attempts = attempts
        self._wanted = assignment.spec.training.micro_batch_size
        self._size = micro_batch_size
        self._tracker = Tracker(assignment)

    def resumed(self, step: int) -> None:
        """Say so when this is not the first attempt, and forget metrics of steps to be redone.

        Those of steps to be kept are logged again: a worker killed right after a checkpoint takes
        what it had not sent yet with it. MLflow's run drops the points that it has.
        """
        attempt = self._attempts.begin(step, self._size)
        for line in _keep_until(self._logs / METRICS, step):
            self._track_step(StepReport(**line))
        for line in _keep_until(self._logs / VALIDATIONS, step):
            del line["best"]
            self._track_validation(Validation(**line))
        if attempt > 1:
            emit(RestartEvent(attempt=attempt - 1, resumed_step=step))
        if self._size < self._wanted:
            self.warned(_smaller(self._size))
        emit(StageEvent("train"))

    def stepped(self, report: StepReport) -> None:
        """One event, one line, one point of each metric."""
        emit(StepEvent(**asdict(report)))
        _append(self._logs / METRICS, asdict(report))
        self._track_step(report)

    def validated(self, validation: Validation, best: bool) -> None:
        """The same for a look at held-out rows."""
        emit(ValidationEvent(validation.step, validation.loss, validation.scores, best))
        _append(self._logs / VALIDATIONS, asdict(validation) | {"best": best})
        self._track_validation(validation)

    def warned(self, text: str) -> None:
        """A line in the log."""
        emit(NoticeEvent(text))

    def backed_off(self, micro_batch_size: int) -> None:
        """Say so, and let a later attempt begin with it."""
        self._attempts.keep_micro_batch_size(micro_batch_size)
        self.warned(_smaller(micro_batch_size))

    def saved(self, step: int, checkpoint: Path) -> None:
        """Ray gets the numbers alone: the checkpoint is where it belongs already."""
        self._tracker.flush()
        ray.train.report({"step": step, "checkpoint": str(checkpoint)})

    def close(self) -> None:
        """Wait for what MLflow has not got yet."""
        self._tracker.close()

    def _track_step(self, report: StepReport) -> None:
        self._tracker.log(_metrics(report), report.step)

    def _track_validation(self, validation: Validation) -> None:
        scores = {f"validation_{name}": value for name, value in validation.scores.items()}
        self._tracker.log({"validation_loss": validation.loss, **scores}, validation.step)


def _smaller(micro_batch_size: int) -> str:
    noun = "row" if micro_batch_size == 1 else "rows"
    return (
        f"memory ran out: forward passes take {micro_batch_size} {noun} now, at the same global "
        "batch"
    )


def _metrics(report: StepReport) -> dict[str, float]:
    """MLflow's and TensorBoard's names of what changes from step to step."""
    return {
        "loss": report.loss,
        "learning_rate": report.learning_rate,
        "grad_norm": report.grad_norm,
        "tokens_per_second": report.tokens_per_second,
        "supervised_tokens_per_second": report.supervised_tokens_per_second,
        "mfu": report.mfu,
        "memory_bytes": float(report.memory_bytes),
    }


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _keep_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The lines kept: later steps are dropped, and a line that a killed worker left half done."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[-1:] == "}"]
    kept = [content for content in map(json.loads, lines) if content["step"] <= step]
    atomic.write_text(path, "".join(json.dumps(content) + "\n" for content in kept))
    return kept
