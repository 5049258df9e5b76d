"""Which waiting rows are taken in at a step, and which of them are prefilled together.

Policy only: it counts rows, tokens and bytes and knows nothing of tensors.
"""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from raylora.engine.cache_budget import CacheBudget
from raylora.engine.fair_queue import FairQueue, Job

PREFILL_TOKENS = 256
"""Prompt tokens a step computes while other rows generate, so that none of them waits long."""
GROUP_TOKENS = 4096
"""Padded prompt tokens of one forward pass; bounds the memory of a prefill."""
PADDING = 1.25
"""A group is closed where padding would take it beyond this multiple of its prompt tokens."""


class Row(Job, Protocol):
    """What the policy needs to know of a request."""

    @property
    def to_prefill(self) -> int:
        """Prompt tokens to compute: those whose keys and values are not known yet."""
        ...


R = TypeVar("R", bound=Row)


class Scheduler(Generic[R]):
    """Up to max_batch_size rows at once, within the budget for their keys and values.

    The row whose turn it is waits for room; none overtakes it, so that a long one is not starved.
    """

    def __init__(self, max_batch_size: int, budget: CacheBudget) -> None:
        self.max_batch_size = max_batch_size
        self._budget = budget
        self._queue = FairQueue[R]()

    @property
    def waiting(self) -> int:
        """Rows that have not been taken in."""
        return len(self._queue)

    def add(self, row: R) -> None:
        """Queue a row, which the budget can hold at least alone."""
        self._queue.add(row)

    def remove(self, row_id: str) -> R | None:
        """Take a row out of the queue; None if it is not waiting."""
        return self._queue.remove(row_id)

    def admit(self, inside: Sequence[R]) -> list[R]:
        """Take the rows that are next out of the queue, beside those that are inside already."""
        chosen: list[R] = []
        lengths = [row.most_tokens for row in inside]
        while (row := self._queue.first()) is not None and len(lengths) < self.max_batch_size:
            lengths.append(row.most_tokens)
            if not self._budget.fits(lengths):
                break
            chosen.append(self._queue.take())
        return chosen


def grouped(rows: Sequence[R]) -> list[list[R]]:
    """Rows with about as much to compute together: little padding, bounded size."""
    groups: list[list[R]] = []
    real = 0
    for row in sorted(rows, key=lambda row: row.to_prefill):
        real += row.to_prefill
        if groups:
            padded = row.to_prefill * (len(groups[-1]) + 1)
            if padded <= GROUP_TOKENS and padded <= PADDING * real:
                groups[-1].append(row)
                continue
        groups.append([row])
        real = row.to_prefill
    return groups
