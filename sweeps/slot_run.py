"""A slot as one Ray Train run, beside whatever the driver does meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import ray

from raylora.config.train_spec import TrainSpec
from raylora.errors import RayloraError
from raylora.jobs.assignment import Assignment, enter
from raylora.jobs.trainer import run_workers
from raylora.sweeps.remote_orders import RemoteOrders

JOIN_S = 60.0
"""Workers that have been told to end do so within seconds; what hangs ends with the driver."""


@contextmanager
def slot_running(
    assignment: Assignment, mailbox: Any, slot: str, lost: Callable[[str, str], None]
) -> Iterator[None]:
    """Within: workers of assignment.spec train the trials that are announced for `slot`.

    At the end the slot is closed. Where its workers are lost for good, `lost` is told the slot and
    why, from another thread, and its trials raise.
    """

    def run() -> None:
        try:
            run_workers(assignment, _work, mailbox=mailbox, slot=slot)
        except BaseException as error:
            said = error.message if isinstance(error, RayloraError) else repr(error)
            why = f"the trials' workers are lost: {said}"
            lost(slot, why)
            ray.get(mailbox.close.remote(why, slot))

    thread = Thread(target=run, name=slot, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ray.get(mailbox.close.remote(slot=slot))
        thread.join(JOIN_S)


def _work(config: dict[str, Any]) -> RayloraError | None:
    assignment: Assignment = config["assignment"]
    enter(assignment.spec)
    import torch

    from raylora.sweeps.slot import run_slot

    threads = max(1, int(assignment.spec.workers.cpus_per_worker))
    torch.set_num_threads(threads)
    lends = threads if _may_lend(assignment.spec) else 0
    try:
        run_slot(assignment.spec, RemoteOrders(config["mailbox"], config["slot"], lends))
    except RayloraError as error:
        return error
    return None


def _may_lend(spec: TrainSpec) -> bool:
    """Sums round otherwise with other threads; workers of one slot wait for each other anyway."""
    workers = spec.workers
    return (
        workers.num_workers == 1
        and not workers.gpus_per_worker
        and not spec.training.deterministic
    )
