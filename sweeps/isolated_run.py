"""An isolated trial as a Ray Train run of its own, from the driver's side."""

from typing import Any

from raylora.errors import RayloraError
from raylora.jobs.assignment import Assignment, enter
from raylora.jobs.trainer import run_workers
from raylora.sweeps.orders import Begin, TrialReport, TrialState
from raylora.sweeps.remote_orders import RemoteOrders


def run_isolated(begin: Begin, mailbox: Any) -> TrialReport:
    """Train a trial with the workers of its spec, until it is over; what it has come to."""
    try:
        return run_workers(begin.assignment, _work, mailbox=mailbox, name=begin.name)
    except RayloraError as error:
        said = error.message
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    return TrialReport(begin.name, TrialState.FAILED, error=said)


def _work(config: dict[str, Any]) -> TrialReport:
    assignment: Assignment = config["assignment"]
    enter(assignment.spec)
    from raylora.sweeps.isolated import run_trial

    name: str = config["name"]
    return run_trial(assignment, name, RemoteOrders(config["mailbox"], name))
