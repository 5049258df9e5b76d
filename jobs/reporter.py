"""What the first worker tells the world: events for the log, JSON lines, MLflow."""

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import ray.train

from raylora.cluster.events import RestartEvent, StageEvent, StepEvent, emit
from raylora.config.places import RunPlaces
from raylora.jobs.assignment import Assignment
from raylora.jobs.train.observer import StepReport
from raylora.lora import atomic
from raylora.tracking.runs import Run, attach

METRICS = "metrics.jsonl"
"""In the run's logs: one line a logging interval, each step once."""
ATTEMPTS = "attempts.jsonl"
"""In the run's metadata: one line each time the workers begin."""

log = logging.getLogger(__name__)


class Follower:
    """A worker that is not the first: takes part in Ray's barrier at checkpoints."""

    def resumed(self, step: int) -> None:
        """Nothing to say."""

    def stepped(self, report: StepReport) -> None:
        """Nothing to say."""

    def saved(self, step: int, checkpoint: Path) -> None:
        """Meet the other workers."""
        ray.train.report({"step": step})

    def close(self) -> None:
        """Nothing to close."""


class Reporter:
    """The first worker's observer."""

    def __init__(self, assignment: Assignment) -> None:
        self._places = assignment.places
        self._tracker = Tracker(assignment)

    def resumed(self, step: int) -> None:
        """Say so when this is not the first attempt, and forget metrics of steps to be redone."""
        attempt = _count_attempt(self._places, step)
        _keep_until(self._places.logs / METRICS, step)
        if attempt > 1:
            emit(RestartEvent(attempt=attempt - 1, resumed_step=step))
        emit(StageEvent("train"))

    def stepped(self, report: StepReport) -> None:
        """One event, one line, one point of each metric."""
        emit(StepEvent(**asdict(report)))
        with (self._places.logs / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(report)) + "\n")
        self._tracker.log(report)

    def saved(self, step: int, checkpoint: Path) -> None:
        """Ray gets the numbers alone: the checkpoint is where it belongs already."""
        self._tracker.flush()
        ray.train.report({"step": step, "checkpoint": str(checkpoint)})

    def close(self) -> None:
        """Wait for what MLflow has not got yet."""
        self._tracker.close()


class Tracker:
    """Writes to the driver's MLflow run from one thread, so that no step waits for it.

    Importing MLflow takes seconds of CPU: it starts with the first metrics, not before training.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        self._run: Run | None = None

    def log(self, report: StepReport) -> None:
        """Log the numbers of a logging interval."""
        self._submit(lambda run: run.log_metrics(_metrics(report), report.step))

    def flush(self) -> None:
        """Have everything so far stored soon."""
        self._submit(lambda run: run.flush())

    def close(self) -> None:
        """Wait until everything is stored or given up."""
        self._submit(lambda run: run.close())
        self._pool.shutdown()

    def _submit(self, act: Callable[[Run], None]) -> None:
        self._pool.submit(self._with_run, act).add_done_callback(_log_failure)

    def _with_run(self, act: Callable[[Run], None]) -> None:
        if self._run is None:
            a = self._assignment
            self._run = attach(a.tracking_uri, a.mlflow_run_id)
            if a.spec.tracking.system_metrics:
                self._run.start_system_metrics()
        act(self._run)


def _metrics(report: StepReport) -> dict[str, float]:
    """MLflow's names of what changes from step to step."""
    return {
        "loss": report.loss,
        "learning_rate": report.learning_rate,
        "grad_norm": report.grad_norm,
        "tokens_per_second": report.tokens_per_second,
        "supervised_tokens_per_second": report.supervised_tokens_per_second,
        "memory_bytes": float(report.memory_bytes),
    }


def _log_failure(done: Future[None]) -> None:
    """A tracking server that is away must not stop training."""
    error = done.exception()
    if error is not None:
        log.warning("MLflow did not take what the worker logged: %s", error)


def _count_attempt(places: RunPlaces, step: int) -> int:
    """Write down that workers begin; which beginning of the run this is."""
    path = places.metadata / ATTEMPTS
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"resumed_step": step, "time": time.time()}) + "\n")
    return len(path.read_text(encoding="utf-8").splitlines())


def _keep_until(path: Path, step: int) -> None:
    """Drop lines of later steps, and one that a killed worker left half written."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[-1:] == "}"]
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    atomic.write_text(path, "".join(f"{line}\n" for line in kept))
