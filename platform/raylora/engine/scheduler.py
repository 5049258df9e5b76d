"""Which waiting rows join the batch at the next step, and which of them are prefilled together.

Policy only: it counts rows and tokens and knows nothing of tensors.
"""

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

PREFILL_TOKENS = 1024
"""Prompt tokens taken in per step while other rows generate, so that none of them waits long."""
GROUP_TOKENS = 4096
"""Padded prompt tokens of one forward pass; bounds the memory of a prefill."""
PADDING = 1.25
"""A group is closed where padding would take it beyond this multiple of its prompt tokens."""


class Row(Protocol):
    """What the policy needs to know of a request."""

    @property
    def id(self) -> str:
        """The request's id."""
        ...

    @property
    def prompt_length(self) -> int:
        """Tokens to prefill."""
        ...


R = TypeVar("R", bound=Row)


class Scheduler(Generic[R]):
    """First come, first served, up to max_batch_size rows at once."""

    def __init__(self, max_batch_size: int) -> None:
        self.max_batch_size = max_batch_size
        self._waiting: deque[R] = deque()

    @property
    def waiting(self) -> int:
        """Rows that have not joined yet."""
        return len(self._waiting)

    def add(self, row: R) -> None:
        """Queue a row."""
        self._waiting.append(row)

    def remove(self, row_id: str) -> R | None:
        """Take a row out of the queue; None if it is not waiting."""
        for row in self._waiting:
            if row.id == row_id:
                self._waiting.remove(row)
                return row
        return None

    def admit(self, running: int) -> list[list[R]]:
        """Take the rows that join now out of the queue, as groups to prefill one after another."""
        chosen: list[R] = []
        tokens = 0
        while self._waiting and running + len(chosen) < self.max_batch_size:
            tokens += self._waiting[0].prompt_length
            if running and chosen and tokens > PREFILL_TOKENS:
                break
            chosen.append(self._waiting.popleft())
        return grouped(chosen)


def grouped(rows: Sequence[R]) -> list[list[R]]:
    """Rows of similar length together: little padding, bounded size."""
    groups: list[list[R]] = []
    real = 0
    for row in sorted(rows, key=lambda row: row.prompt_length):
        real += row.prompt_length
        if groups:
            padded = row.prompt_length * (len(groups[-1]) + 1)
            if padded <= GROUP_TOKENS and padded <= PADDING * real:
                groups[-1].append(row)
                continue
        groups.append([row])
        real = row.prompt_length
    return groups
