"""What the first worker tells the world: events for the log of the job, and the run's log."""

from dataclasses import asdict
from pathlib import Path

import ray.train

from raylora.cluster.events import (
    NoticeEvent,
    RestartEvent,
    StageEvent,
    StepEvent,
    Tell,
    ValidationEvent,
)
from raylora.jobs.assignment import Assignment
from raylora.jobs.attempts import Attempts
from raylora.jobs.run_log import RunLog
from raylora.jobs.train.observer import StepReport
from raylora.jobs.train.validation import Validation
from raylora.tracking.spooling.spooled import attach


class Follower:
    """A worker that is not the first: takes part in Ray's barrier at checkpoints.

    The first one of a node that the first worker is not on samples that node.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._run = attach(assignment.places.tracking, assignment.run_id)
        context = ray.train.get_context()
        if context.get_local_rank() == 0 and assignment.spec.tracking.system_metrics:
            self._run.start_system_metrics()

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
        """End the sampling."""
        self._run.close()


class Reporter:
    """The first worker's observer."""

    def __init__(
        self, assignment: Assignment, attempts: Attempts, micro_batch_size: int, tell: Tell
    ) -> None:
        """`micro_batch_size` is what this attempt begins with."""
        self._log = RunLog(assignment)
        self._attempts = attempts
        self._wanted = assignment.spec.training.micro_batch_size
        self._size = micro_batch_size
        self._tell = tell

    def resumed(self, step: int) -> None:
        """Say so when this is not the first attempt."""
        attempt = self._attempts.begin(step, self._size)
        self._log.begin(step)
        if attempt > 1:
            self._tell(RestartEvent(attempt=attempt - 1, resumed_step=step))
        if self._size < self._wanted:
            self.warned(_smaller(self._size))
        self._tell(StageEvent("train"))

    def stepped(self, report: StepReport) -> None:
        """One event, and what the log keeps."""
        self._tell(StepEvent(**asdict(report)))
        self._log.step(report)

    def validated(self, validation: Validation, best: bool) -> None:
        """The same for a look at held-out rows."""
        self._tell(ValidationEvent(validation.step, validation.loss, validation.scores, best))
        self._log.validation(validation, best)

    def warned(self, text: str) -> None:
        """A line in the log."""
        self._tell(NoticeEvent(text))

    def backed_off(self, micro_batch_size: int) -> None:
        """Say so, and let a later attempt begin with it."""
        self._attempts.keep_micro_batch_size(micro_batch_size)
        self.warned(_smaller(micro_batch_size))

    def saved(self, step: int, checkpoint: Path) -> None:
        """Ray gets the numbers alone: the checkpoint is where it belongs already."""
        self._log.flush()
        ray.train.report({"step": step, "checkpoint": str(checkpoint)})

    def close(self) -> None:
        """Wait until everything is written."""
        self._log.close()


def _smaller(micro_batch_size: int) -> str:
    noun = "row" if micro_batch_size == 1 else "rows"
    return (
        f"memory ran out: forward passes take {micro_batch_size} {noun} now, at the same global "
        "batch"
    )
