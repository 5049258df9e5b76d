"""Metrics on their way to the run's spool and to TensorBoard, so that no step waits for either.

Importing TensorBoard, and what samples the node, takes seconds of CPU: that begins with the first
metrics, not before training. The driver sends what is in the spool.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.jobs.assignment import Assignment
from raylora.tracking.spooling.spooled import attach

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

TENSORBOARD = "tensorboard"
"""In the run's logs: event files, one for each start of the workers."""

log = logging.getLogger(__name__)


class Tracker:
    """Writes to the run's spool at once, which takes microseconds, and to TensorBoard later."""

    def __init__(self, assignment: Assignment) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracker")
        self._run = attach(assignment.places.tracking, assignment.run_id)
        self._samples = assignment.spec.tracking.system_metrics
        self._board = _Board(assignment.places.logs / TENSORBOARD)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log what was measured at a step; never waits."""
        if self._samples:
            self._run.start_system_metrics()
            self._samples = False
        self._run.log_metrics(metrics, step)
        self.draw(metrics, step)

    def draw(self, metrics: Mapping[str, float], step: int) -> None:
        """The same for TensorBoard alone, which each start of the workers draws anew."""
        self._submit(lambda: self._board.draw(metrics, step))

    def flush(self) -> None:
        """Have everything so far survive a power failure."""
        self._run.flush()
        self._submit(self._board.flush)

    def close(self) -> None:
        """Wait until everything is written."""
        self._submit(self._board.close)
        self._pool.shutdown()
        self._run.close()

    def _submit(self, act: Callable[[], None]) -> None:
        self._pool.submit(act).add_done_callback(_log_failure)


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
    """A drawing that fails must not stop training."""
    error = done.exception()
    if error is not None:
        log.warning("TensorBoard's files are incomplete: %s", error)
