"""What a slot is told, and what it tells: plain data between processes. Light: no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from raylora.jobs.assignment import Assignment


class TrialState(StrEnum):
    """How far a trial is."""

    WAITING = "waiting"
    """It has reported, and goes on when it is told to."""
    FINISHED = "finished"
    """All of its steps are done, and its adapter is saved."""
    STOPPED = "stopped"
    """It was told to end early."""
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether the trial has left its slot."""
        return self is not TrialState.WAITING


@dataclass(frozen=True)
class Begin:
    """Take a trial in."""

    name: str
    assignment: Assignment
    metric: str
    """The trial reports when this is known..."""
    report_steps: int
    """...and for the loss of training every so many steps."""
    at_saves: bool = False
    """It reports when a checkpoint has been written instead: others may go on from that."""
    after_step: int = 0
    """What it had reported before this step is known: it asks for nothing up to here."""


@dataclass(frozen=True)
class GoOn:
    """Let a trial that has reported train to its next report."""

    name: str


@dataclass(frozen=True)
class End:
    """End a trial where it stands."""

    name: str


@dataclass(frozen=True)
class Threads:
    """Compute with so many from now on."""

    count: int


@dataclass(frozen=True)
class Close:
    """End the slot, and with it the trials that it still has."""


Order: TypeAlias = Begin | GoOn | End | Threads | Close


@dataclass(frozen=True)
class TrialReport:
    """What a trial has come to."""

    name: str
    state: TrialState
    step: int = 0
    """Optimizer steps done."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    """The last value of each, by MLflow's names."""
    error: str = ""
    """Why it failed."""


class Orders(Protocol):
    """Where a slot's first worker gets its orders."""

    def opened(self) -> None:
        """Say that the slot is there and empty; trials that it had before are ordered again."""
        ...

    def exchange(self, reports: Sequence[TrialReport], idle: bool) -> Sequence[Order]:
        """Hand over what is new; the orders given since. May wait for one where idle."""
        ...
