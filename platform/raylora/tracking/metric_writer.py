"""Metric points on their way to the store: buffered, sent by a thread, each (key, step) once."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from raylora.errors import RayloraError, Unreachable

log = logging.getLogger(__name__)

CAPACITY = 50_000
"""Points kept while the store is away (about 10 MB): 10,000 steps of five metrics."""
BATCH = 1_000
"""MLflow's limit of metrics in one request."""
GATHER_SECONDS = 1.0
"""How long the thread collects before it sends: one request a second however short a step is."""
LONGEST_PAUSE_SECONDS = 5.0
"""Between two attempts at a store that does not answer; the first pause is a second."""


class Point(NamedTuple):
    """One metric value."""

    key: str
    value: float
    timestamp_ms: int
    step: int


class MetricWriter:
    """Sends points in order from a thread of its own.

    The steps of one key only go forward: a point at or before the last step of its key was sent
    already, by this process or by the one before a restart, and is dropped. A store that does not
    answer is asked again until `close`; a batch that a store refuses is lost. Lost points, those
    beyond CAPACITY too, are counted in `lost`.
    """

    def __init__(
        self, send: Callable[[Sequence[Point]], None], last_steps: Mapping[str, int]
    ) -> None:
        self.lost = 0
        self.error: RayloraError | None = None
        self._send = send
        self._last_steps = dict(last_steps)
        self._waiting: deque[Point] = deque()
        self._changed = threading.Condition()
        self._hurried = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue the values of one step; takes microseconds and never waits for the store."""
        now = time.time_ns() // 1_000_000
        with self._changed:
            for key, value in metrics.items():
                if step <= self._last_steps.get(key, -1):
                    continue
                self._last_steps[key] = step
                if self._closed or len(self._waiting) >= CAPACITY:
                    self._lose(1, self.error or Unreachable("the queue is closed or full"))
                    continue
                self._waiting.append(Point(key, float(value), now, step))
            if self._thread is None and self._waiting:
                self._thread = threading.Thread(
                    target=self._run, name="raylora-metrics", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Send what waits now; False where that was not done in `timeout` seconds."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._waiting, timeout)

    def close(self, timeout: float) -> None:
        """Send what waits, then stop; what the store did not take in `timeout` seconds is lost."""
        sent = self.flush(timeout)
        with self._changed:
            self._closed = True
            if not sent:
                self._lose(len(self._waiting), self.error or Unreachable("the store is too slow"))
                self._waiting.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        pause = 1.0
        while batch := self._next_batch():
            try:
                self._send(batch)
            except Unreachable as error:
                self._note(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            except RayloraError as error:
                with self._changed:
                    self._lose(len(batch), error)
            pause = 1.0
            self._forget(batch)

    def _next_batch(self) -> list[Point]:
        """The oldest points, which stay in the queue until they are sent; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(
                lambda: self._hurried or self._closed or len(self._waiting) >= BATCH,
                GATHER_SECONDS,
            )
            return list(islice(self._waiting, BATCH))

    def _forget(self, batch: Sequence[Point]) -> None:
        with self._changed:
            if not self._closed:
                for _ in batch:
                    self._waiting.popleft()
            self._hurried = self._hurried and bool(self._waiting)
            if not self.lost:
                self.error = None
            self._changed.notify_all()

    def _lose(self, count: int, error: RayloraError) -> None:
        if not self.lost:
            log.warning("metric points are being lost: %s", error)
        self.lost += count
        self.error = error

    def _note(self, error: RayloraError) -> None:
        if self.error is None:
            log.warning("metrics wait, the tracking store does not answer: %s", error)
        self.error = error
