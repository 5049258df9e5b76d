"""One version on this replica: its state, its use, and a request's hold on it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from raylora.errors import RayloraError, Unreachable
from raylora.lora.bank.eviction import NoRoom
from raylora.lora.integrity import AdapterFacts

RETRY_S = 30.0
"""A version that could not be loaded is not tried again for this long."""
UNREACHABLE_S = 2.0
"""As RETRY_S, where the registry did not answer."""
PASSING = (NoRoom, Unreachable)
"""Failures that say nothing about the version itself."""


class AdapterState(StrEnum):
    """Where a version is on its way into the bank and out of it."""

    KNOWN = "known"
    """Registered, and not asked for on this replica."""
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    """Answers what it began to answer, and leaves after that."""
    FAILED = "failed"

    @property
    def is_loaded(self) -> bool:
        """Whether the bank holds it."""
        return self in (AdapterState.READY, AdapterState.DRAINING)


@dataclass
class Resident:
    """A version that was asked for."""

    key: str
    """name@version or run:id, which is also its key in the bank."""
    state: AdapterState = AdapterState.LOADING
    facts: AdapterFacts | None = None
    memory: int = 0
    """Bytes it takes in the bank."""
    chat_template: str | None = None
    """What it was trained with, where that is not the base's."""
    error: RayloraError | None = None
    asked_as: set[str] = field(default_factory=set[str])
    """The names it was asked for by: itself, name, name@alias."""
    in_use: int = 0
    requests: int = 0
    last_used: datetime | None = None
    touched: float = field(default_factory=time.monotonic)

    @property
    def system_prompt(self) -> str | None:
        """What it was trained with; offered to clients, never added by us."""
        return None if self.facts is None else self.facts.system_prompt

    @property
    def failed_lately(self) -> bool:
        """Whether loading it again is not worth a try yet."""
        wait_s = RETRY_S
        if isinstance(self.error, PASSING):
            wait_s = UNREACHABLE_S if isinstance(self.error, Unreachable) else 0.0
        return self.error is not None and time.monotonic() - self.touched < wait_s


class Lease:
    """One request's hold on the model that answers it; the version stays until it is released."""

    def __init__(
        self,
        name: str,
        resident: Resident | None,
        idle: Callable[[Resident], None] = lambda resident: None,
    ) -> None:
        """`idle` is told when nobody holds the version any more."""
        self.name = name
        """What answers: name@version, or the base's name."""
        self.resident = resident
        self.shadow: str | None = None
        """Model that answers once more, for comparison."""
        self._idle = idle
        if resident is not None:
            resident.in_use += 1
            resident.requests += 1
            resident.touched = time.monotonic()
            resident.last_used = datetime.now(UTC)

    @property
    def adapter(self) -> str | None:
        """The key in the bank; None for the base."""
        return None if self.resident is None else self.resident.key

    @property
    def chat_template(self) -> str | None:
        """What it was trained with; None where that is the base's."""
        return None if self.resident is None else self.resident.chat_template

    def release(self) -> None:
        """The request has ended; to be called once."""
        if self.resident is not None:
            self.resident.in_use -= 1
            if self.resident.in_use == 0:
                self._idle(self.resident)
