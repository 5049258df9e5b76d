"""Metrics on their way to MLflow and TensorBoard, from one thread, so that no step waits for it.

Importing either takes seconds of CPU: that begins with the first metrics, not before training.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.jobs.assignment import Assignment
from raylora.tracking.runs import Run, attach

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

TENSORBOARD = "tensorboard"
"""In the run's logs: event files, one for each start of the workers."""

log = logging.getLogger(__name__)


class Tracker:
    """Writes to the driver's MLflow run and to the run's TensorBoard files."""

    def __init__(self, assignment: Assignment) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracker")
        self._mlflow = _Mlflow(assignment)
        self._board = _Board(assignment.places.logs / TENSORBOARD)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log what was measured at a step; never waits."""
        self._submit(lambda: self._mlflow.run.log_metrics(metrics, step))
        self._submit(lambda: self._board.draw(metrics, step))

    def flush(self) -> None:
        """Have everything so far stored soon."""
        self._submit(lambda: self._mlflow.run.flush())
        self._submit(self._board.flush)

    def close(self) -> None:
        """Wait until everything is stored or given up."""
        self._submit(lambda: self._mlflow.run.close())
        self._submit(self._board.close)
        self._pool.shutdown()

    def _submit(self, act: Callable[[], None]) -> None:
        self._pool.submit(act).add_done_callback(_log_failure)


class _Mlflow:
    """The run that the driver opened."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    @cached_property
    def run(self) -> Run:
        a = self._assignment
        run = attach(a.tracking_uri, a.mlflow_run_id)
        if a.spec.tracking.system_metrics:
            run.start_system_metrics()
        return run


class _Board:
    """TensorBoard's event files: what earlier ones drew is hidden, to be drawn again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def draw(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    @cached_property
    def _writer(self) -> "SummaryWriter":
        from torch.utils.tensorboard.writer import SummaryWriter

        return SummaryWriter(str(self._folder), purge_step=0)


def _log_failure(done: Future[None]) -> None:
    """A tracking server that is away must not stop training."""
    error = done.exception()
    if error is not None:
        log.warning("what the worker logged was not taken: %s", error)
