"""The slots of a plan, while trials train in them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from raylora.jobs.assignment import Assignment
from raylora.sweeps.planner import Plan
from raylora.sweeps.slot_run import slot_running


@contextmanager
def executing(plan: Plan, sweep: Assignment, mailbox: Any) -> Iterator[None]:
    """Within: trials that are announced to `mailbox` for a slot of the plan train in it."""
    with ExitStack() as slots:
        for slot in plan.slots:
            run_id = f"{sweep.run_id}-{slot.name}"
            slots.enter_context(slot_running(replace(sweep, run_id=run_id), mailbox, slot.name))
        yield
