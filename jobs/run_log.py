"""What is kept of a run's numbers: JSON lines, MLflow's run, TensorBoard; each step once."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raylora.jobs.assignment import Assignment
from raylora.jobs.tracker import Tracker
from raylora.jobs.train.observer import StepReport
from raylora.jobs.train.validation import Validation
from raylora.lora import atomic

METRICS = "metrics.jsonl"
"""In the run's logs: one line a logging interval, each step once."""
VALIDATIONS = "validations.jsonl"
"""In the run's logs: one line a look at held-out rows."""


class RunLog:
    """Written by the first worker."""

    def __init__(self, assignment: Assignment) -> None:
        self._logs = assignment.places.logs
        self._tracker = Tracker(assignment)

    def begin(self, step: int) -> None:
        """Forget steps to be redone, and draw again those that are kept.

        MLflow's run has their points, or the spool does: a killed worker takes none with it.
        """
        for line in _keep_until(self._logs / METRICS, step):
            self._tracker.draw(_metrics(StepReport(**line)), line["step"])
        for line in _keep_until(self._logs / VALIDATIONS, step):
            self._tracker.draw(_scores(_validation(line)), line["step"])

    def step(self, report: StepReport) -> None:
        """One line, one point of each metric."""
        _append(self._logs / METRICS, asdict(report))
        self._tracker.log(_metrics(report), report.step)

    def validation(self, validation: Validation, best: bool) -> None:
        """The same for a look at held-out rows."""
        _append(self._logs / VALIDATIONS, asdict(validation) | {"best": best})
        self._tracker.log(_scores(validation), validation.step)

    def flush(self) -> None:
        """Have everything so far survive a power failure."""
        self._tracker.flush()

    def close(self) -> None:
        """Wait until everything is written."""
        self._tracker.close()


def latest(logs: Path, step: int) -> tuple[StepReport | None, Validation | None]:
    """The last of each that a run's logs have, `step` steps done."""
    reports = [line for line in _lines(logs / METRICS) if line["step"] <= step]
    validations = [line for line in _lines(logs / VALIDATIONS) if line["step"] <= step]
    return (
        StepReport(**reports[-1]) if reports else None,
        _validation(validations[-1]) if validations else None,
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


def _scores(validation: Validation) -> dict[str, float]:
    scores = {f"validation_{name}": value for name, value in validation.scores.items()}
    return {"validation_loss": validation.loss, **scores}


def _validation(line: dict[str, Any]) -> Validation:
    return Validation(line["step"], line["loss"], line["scores"])


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _keep_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The lines kept: later steps are dropped."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return []
    kept = [content for content in _lines(path) if content["step"] <= step]
    atomic.write_text(path, "".join(json.dumps(content) + "\n" for content in kept))
    return kept


def _lines(path: Path) -> list[dict[str, Any]]:
    """All but one that a killed worker left half done."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line[-1:] == "}"]
