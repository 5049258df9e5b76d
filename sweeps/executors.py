"""Whatever trains the trials of a sweep, as planned: shared slots, and runs of single trials."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import BoundedSemaphore, Thread
from typing import Any

import ray

from raylora.config.train_spec import TrainSpec
from raylora.jobs.assignment import Assignment
from raylora.sweeps.isolated_run import run_isolated
from raylora.sweeps.orders import Begin, Close, End, Order, TrialReport
from raylora.sweeps.planner import Plan
from raylora.sweeps.slot_run import JOIN_S, slot_running
from raylora.sweeps.slots import Slots

TURN_S = 1.0
"""How often a trial that waits for its turn looks whether it is to end."""


class Executors:
    """Gives trials their slots, and starts those that have one of their own."""

    def __init__(self, plan: Plan, sweep: Assignment, mailbox: Any) -> None:
        """`sweep` is the sweep's own assignment, `mailbox` the actor."""
        self._plan = plan
        self._sweep = sweep
        self._mailbox = mailbox
        self._slots = Slots(plan, sweep.spec)
        self._room = BoundedSemaphore(max(1, plan.isolated_at_once))
        self._threads: dict[str, Thread] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within: trials that are announced train. At the end those that still do are ended."""
        with ExitStack() as stack:
            for slot in self._plan.slots:
                spec = self._sweep.spec.model_copy(update={"workers": slot.workers})
                run_id = f"{self._sweep.run_id}-{slot.name}"
                assignment = replace(self._sweep, spec=spec, run_id=run_id)
                stack.enter_context(
                    slot_running(assignment, self._mailbox, slot.name, lost=self._slots.lost)
                )
            try:
                yield
            finally:
                ray.get(self._mailbox.close.remote())
                self.join()

    def slot_of(self, name: str, spec: TrainSpec) -> str:
        """See Slots. One of the trial's own is there from now on, and waits for its orders."""
        slot = self._slots.slot_of(name, spec)
        if slot == name and slot not in self._threads:
            thread = Thread(target=self._run, args=(slot,), name=slot, daemon=True)
            self._threads[slot] = thread
            thread.start()
        return slot

    def again(self, name: str, spec: TrainSpec) -> str:
        """Where a trial trains that was ended and begins anew: where it was."""
        if thread := self._threads.pop(name, None):
            thread.join(JOIN_S)  # both would ask for its orders
        return self.slot_of(name, spec)

    def refusal(self, spec: TrainSpec) -> str:
        """See Slots."""
        return self._slots.refusal(spec)

    def left(self, name: str) -> None:
        """See Slots."""
        self._slots.left(name)

    def join(self) -> None:
        """Wait until trials with workers of their own have ended, which they have been told to."""
        for thread in self._threads.values():
            thread.join(JOIN_S)

    def _run(self, slot: str) -> None:
        begin = self._ordered(slot)
        if begin is not None and self._has_turn(slot):
            try:
                report = run_isolated(begin, self._mailbox)
            finally:
                self._room.release()
            self._exchange(slot, [report])

    def _ordered(self, slot: str) -> Begin | None:
        """Wait until the trial is to begin; None where it is to end. One that is over never is."""
        while True:
            for order in self._exchange(slot, idle=True):
                match order:
                    case Begin():
                        return order
                    case End() | Close():
                        return None
                    case _:
                        pass

    def _has_turn(self, slot: str) -> bool:
        """Wait for room; False where the trial is to end before there is any."""
        while not self._room.acquire(timeout=TURN_S):
            if any(isinstance(order, End | Close) for order in self._exchange(slot)):
                return False
        return True

    def _exchange(
        self, slot: str, reports: Sequence[TrialReport] = (), idle: bool = False
    ) -> Sequence[Order]:
        """Orders that are taken here are given again when the trial's workers have opened."""
        return ray.get(self._mailbox.exchange.remote(slot, reports, idle))
