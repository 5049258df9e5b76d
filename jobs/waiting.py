"""What a job waits for before its workers can start, said when it is clear that others hold it."""

import time
from collections.abc import Callable, Mapping

from raylora.cluster.events import NoticeEvent, emit

PATIENCE_S = 5.0
"""A job that has just ended gives back what it had within a second or two."""
PAUSE_S = 0.5

Amounts = Mapping[str, float]
"""Resource to how much of it, in Ray's names."""


def say_what_is_missing(wanted: Amounts, free: Callable[[], Amounts]) -> None:
    """Return when there is enough, or once it was said what is missing: Ray goes on waiting."""
    deadline = time.monotonic() + PATIENCE_S
    while missing := _missing(wanted, free()):
        if time.monotonic() > deadline:
            emit(
                NoticeEvent(
                    f"waiting for {missing}; the rest is in use: `raylora jobs list` and "
                    "`raylora serve status` say by whom"
                )
            )
            return
        time.sleep(PAUSE_S)


def _missing(wanted: Amounts, free: Amounts) -> str:
    short = [name for name, amount in wanted.items() if amount > free.get(name, 0)]
    return " and ".join(f"{wanted[name]:g} {name} ({free.get(name, 0):g} free)" for name in short)
