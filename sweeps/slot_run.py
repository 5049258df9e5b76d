"""A slot as one Ray Train run, beside whatever the driver does meanwhile."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

import ray

from raylora.errors import RayloraError
from raylora.jobs.assignment import Assignment, enter
from raylora.jobs.trainer import run_workers
from raylora.sweeps.orders import Order, TrialReport


@contextmanager
def slot_running(assignment: Assignment, mailbox: Any, slot: str) -> Iterator[None]:
    """Within: workers of assignment.spec train the trials that are announced for `slot`.

    At the end the slot is closed. Where its workers are lost for good, its trials raise.
    """

    def run() -> None:
        try:
            run_workers(assignment, _work, mailbox=mailbox, slot=slot)
        except BaseException as error:
            why = error.message if isinstance(error, RayloraError) else repr(error)
            ray.get(mailbox.close.remote(f"the trials' workers are lost: {why}", slot))

    thread = Thread(target=run, name=slot, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ray.get(mailbox.close.remote(slot=slot))
        thread.join()


class _Remote:
    """Orders by way of the actor."""

    def __init__(self, mailbox: Any, slot: str) -> None:
        self._mailbox = mailbox
        self._slot = slot

    def opened(self) -> None:
        """See Orders."""
        ray.get(self._mailbox.opened.remote(self._slot))

    def exchange(self, reports: Sequence[TrialReport], idle: bool) -> Sequence[Order]:
        """See Orders."""
        return ray.get(self._mailbox.exchange.remote(self._slot, reports, idle))


def _work(config: dict[str, Any]) -> RayloraError | None:
    assignment: Assignment = config["assignment"]
    enter(assignment.spec)
    import torch

    from raylora.sweeps.slot import run_slot

    torch.set_num_threads(max(1, int(assignment.spec.workers.cpus_per_worker)))
    try:
        run_slot(assignment.spec, _Remote(config["mailbox"], config["slot"]))
    except RayloraError as error:
        return error
    return None
