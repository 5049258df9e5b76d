"""Where a job is and what it has said, gathered from its events."""

import time
from collections import deque
from dataclasses import dataclass, field

from raylora.cluster.events import (
    BatchEvent,
    ComparisonEvent,
    ErrorEvent,
    EvaluationEvent,
    Event,
    NoticeEvent,
    ReportEvent,
    RestartEvent,
    ResultEvent,
    StageEvent,
    StepEvent,
    ValidationEvent,
)
from raylora.cluster.job_info import JobInfo

TAIL_LINES = 20
"""Lines of the log that are shown where a job fails."""


@dataclass
class Progress:
    """Where a job is, and what it has said so far."""

    stage: str = "starting"
    detail: str = ""
    step: StepEvent | None = None
    restarts: int = 0
    validation: ValidationEvent | None = None
    """The latest."""
    evaluations: list[EvaluationEvent] = field(default_factory=list[EvaluationEvent])
    comparisons: list[ComparisonEvent] = field(default_factory=list[ComparisonEvent])
    report: ReportEvent | None = None
    result: ResultEvent | None = None
    batch: BatchEvent | None = None
    error: ErrorEvent | None = None
    """The last one."""
    stage_seconds: dict[str, float] = field(default_factory=dict[str, float])
    """Finished stages in their order."""
    tail: deque[str] = field(default_factory=lambda: deque[str](maxlen=TAIL_LINES))
    _since: float = field(default_factory=time.time)

    def see(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case StageEvent(stage, detail, at):
                self.close_stage(at)
                self.stage, self.detail = stage, detail
            case StepEvent():
                self.step = event
            case ValidationEvent():
                self.validation = event
            case NoticeEvent():
                pass
            case RestartEvent(attempt):
                self.restarts = attempt
            case EvaluationEvent():
                self.evaluations.append(event)
            case ComparisonEvent():
                self.comparisons.append(event)
            case ReportEvent():
                self.report = event
            case ResultEvent():
                self.result = event
            case BatchEvent():
                self.batch = event
            case ErrorEvent():
                self.error = event

    def close_stage(self, at: float) -> None:
        """The current stage ends at this time, by the clock of the machine that says so."""
        spent = self.stage_seconds.get(self.stage, 0.0)
        # Clocks of two machines may differ by more than the first stage took.
        self.stage_seconds[self.stage] = spent + max(0.0, at - self._since)
        self._since = at


@dataclass(frozen=True)
class Outcome:
    """A job that has ended."""

    job: JobInfo
    progress: Progress
