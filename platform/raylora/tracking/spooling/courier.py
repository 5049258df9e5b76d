"""The thread of a process that brings the spools of its runs to one tracking store."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from raylora.errors import NotAuthorised, RayloraError, Unreachable
from raylora.tracking.spooling.delivery import Delivery

log = logging.getLogger(__name__)

GATHER_SECONDS = 1.0
"""Between two looks at the spools: one request a second for a run, however short its steps are."""
LONGEST_PAUSE_SECONDS = 5.0
"""Between two attempts at a store that does not answer; the first pause is a second."""
SILENT_SECONDS = 30.0
"""A store that has refused to answer for so long is not waited for at the end of a job."""
LOCK = "lock"
"""In a spool's folder: held by whoever sends it."""


@cache
def courier_of(uri: str) -> "Courier":
    """The courier of this process to a store."""
    return Courier()


class Courier:
    """Sends the spools of several runs in turn; what is refused or late holds nobody up."""

    def __init__(self) -> None:
        self._deliveries: dict[Delivery, FileLock] = {}
        self._changed = threading.Condition()
        self._hurried = False
        self._thread: threading.Thread | None = None
        self._error: RayloraError | None = None
        self._failures = 0
        self._answered = time.monotonic()
        """When the store last took something, or there was nothing to take."""

    @property
    def error(self) -> RayloraError | None:
        """Why the store takes nothing now."""
        return self._error

    def add(self, folder: Path, make: Callable[[], Delivery]) -> Delivery:
        """Send what is in a spool's folder, until its run is over or it is withdrawn.

        Whoever has appended something calls it after that. `make` is used unless it is sent now.
        """
        with self._changed:
            for known in self._deliveries:
                if known.folder == folder:
                    self._hurried = True
                    self._changed.notify_all()
                    return known
            if not self._deliveries:
                self._error = None  # of runs that are over, or were withdrawn
            delivery = make()
            self._deliveries[delivery] = FileLock(folder / LOCK, thread_local=False)
            if self._thread is None:
                self._answered = time.monotonic()
                self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
                self._thread.start()
        self.hurry()
        return delivery

    def hurry(self) -> None:
        """Look at the spools now."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def wait(self, until: Callable[[], bool], limit_s: float) -> bool:
        """Wait for something to be sent; whether it was.

        Ends early where the store has not answered for SILENT_SECONDS, nor now: it is away.
        """
        self.hurry()
        deadline = time.monotonic() + limit_s
        with self._changed:
            # One attempt may be under way, and have begun long ago.
            enough = self._failures + 2
            while not until():
                now = time.monotonic()
                away = self._failures >= enough and now - self._answered > SILENT_SECONDS
                if away or now >= deadline:
                    return False
                self._changed.wait(min(0.2, deadline - now))
        return True

    @property
    def waiting(self) -> Sequence[Delivery]:
        """Those of which something is not sent."""
        with self._changed:
            return [delivery for delivery in self._deliveries if delivery.waiting]

    def withdraw(self, delivery: Delivery) -> None:
        """Send no more of it."""
        with self._changed:
            lock = self._deliveries.pop(delivery, None)
        if lock is not None:
            lock.release(force=True)

    def _run(self) -> None:
        pause = 1.0
        while True:
            try:
                self._round()
            except (Unreachable, NotAuthorised) as error:
                self._note(error)
                self._sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            self._error, pause = None, 1.0
            self._answered = time.monotonic()
            self._sleep(GATHER_SECONDS)

    def _round(self) -> None:
        """Send all there is, a request of each run at a time."""
        with self._changed:
            self._hurried = False
            left = list(self._deliveries.items())
        for delivery, _ in left:
            delivery.keep_within_limit()
        while left:
            left = [(delivery, lock) for delivery, lock in left if self._turn(delivery, lock)]

    def _turn(self, delivery: Delivery, lock: FileLock) -> bool:
        """One request of a run; whether there may be more."""
        if not self._holds(delivery, lock):
            return False
        try:
            more = delivery.deliver()
        except (Unreachable, NotAuthorised):
            raise
        except Exception as error:
            # Of one run, such as a deleted experiment: the others are not to suffer from it.
            log.warning("a run is not tracked any more: %s", error)
            delivery.failure = error
            self.withdraw(delivery)
            more = False
        with self._changed:
            self._answered = time.monotonic()
            self._changed.notify_all()
            if not more and delivery.over:
                delivery.tidy_up()
                self.withdraw(delivery)
        return more

    def _holds(self, delivery: Delivery, lock: FileLock) -> bool:
        """Whether it is to be sent here: it was not withdrawn, and no other process sends it."""
        with self._changed:
            if delivery not in self._deliveries:
                return False
            if not lock.is_locked:
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    return False
                delivery.reload()
            return True

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._hurried, seconds)

    def _note(self, error: RayloraError) -> None:
        if self._error is None:
            log.warning("what is logged waits on disk: %s", error.message)
        with self._changed:
            self._error = error
            self._failures += 1
            self._hurried = False
            self._changed.notify_all()
