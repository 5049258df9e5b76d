"""What is known about a job, and what its states mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from raylora.errors import ExitCode


class JobState(StrEnum):
    """State of a Ray Job."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def terminal(self) -> bool:
        """Nothing more will happen."""
        return self not in (JobState.PENDING, JobState.RUNNING)

    @property
    def ok(self) -> bool:
        """The job did what it was asked for, or still may."""
        return self not in (JobState.STOPPED, JobState.FAILED)


@dataclass(frozen=True)
class JobInfo:
    """One job of a cluster."""

    job_id: str
    state: JobState
    name: str = ""
    run_id: str | None = None
    program: str = ""
    """Module the driver runs, such as raylora.jobs.finetune."""
    message: str = ""
    """Ray's own words on the state."""
    started: datetime | None = None
    ended: datetime | None = None
    driver_exit_code: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def exit_code(self) -> ExitCode:
        """What the command that followed the job exits with; 5 and 6 are the driver's own."""
        if self.state.ok:
            return ExitCode.OK
        if self.driver_exit_code in (ExitCode.INVALID, ExitCode.DATA):
            return ExitCode(self.driver_exit_code)
        return ExitCode.FAILED

    @property
    def seconds(self) -> float | None:
        """How long it ran, or has run so far."""
        if self.started is None:
            return None
        return ((self.ended or datetime.now(UTC)) - self.started).total_seconds()
