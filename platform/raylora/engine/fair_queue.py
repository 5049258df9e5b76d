"""Whose turn it is: adapters share the engine, however many requests each of them has waiting.

Start-time fair queueing (Goyal, Vin, Cheng 1996) over adapters, the base being one of them: a row
costs its tokens, and the adapter that has had least so far is next. Pure Python.
"""

from collections import deque
from typing import Generic, Protocol, TypeVar

_REMEMBERED = 1024
"""Adapters without a waiting row whose past is kept before it is cleared of what is over."""


class Job(Protocol):
    """What the queue needs to know of a row."""

    @property
    def id(self) -> str:
        """The request's id."""
        ...

    @property
    def adapter(self) -> str | None:
        """Whose turn it takes; None is the base."""
        ...

    @property
    def most_tokens(self) -> int:
        """Prompt and answer, if it goes on to its limit."""
        ...


J = TypeVar("J", bound=Job)


class FairQueue(Generic[J]):
    """First come, first served for one adapter; among adapters by what they have had."""

    def __init__(self) -> None:
        self._lines: dict[str | None, deque[tuple[int, J]]] = {}
        """Waiting rows of an adapter, with the number of their arrival."""
        self._due: dict[str | None, float] = {}
        """Virtual time at which an adapter's next row starts."""
        self._now = 0.0
        """Virtual time: the start of the row that was taken last."""
        self._arrivals = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, job: J) -> None:
        """Queue a row. An adapter that had none waiting gets no credit for that time."""
        line = self._lines.setdefault(job.adapter, deque())
        if not line:
            self._due[job.adapter] = max(self._now, self._due.get(job.adapter, 0.0))
        line.append((self._arrivals, job))
        self._arrivals += 1
        self._size += 1

    def remove(self, job_id: str) -> J | None:
        """Take a row out; None if it is not waiting."""
        for adapter, line in self._lines.items():
            for entry in line:
                if entry[1].id == job_id:
                    line.remove(entry)
                    self._shorten(adapter)
                    return entry[1]
        return None

    def first(self) -> J | None:
        """The row whose turn it is."""
        return self._lines[self._next()][0][1] if self._size else None

    def take(self) -> J:
        """Take it out."""
        adapter = self._next()
        _, job = self._lines[adapter].popleft()
        self._now = self._due[adapter]
        self._due[adapter] += job.most_tokens
        self._shorten(adapter)
        return job

    def _next(self) -> str | None:
        return min(self._lines, key=lambda name: (self._due[name], self._lines[name][0][0]))

    def _shorten(self, adapter: str | None) -> None:
        self._size -= 1
        if not self._lines[adapter]:
            del self._lines[adapter]
        if len(self._due) > len(self._lines) + _REMEMBERED:
            self._due = {
                name: due
                for name, due in self._due.items()
                if name in self._lines or due > self._now
            }
