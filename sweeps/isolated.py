"""One trial with workers of its own: the ordinary run, which reports, waits and ends as ordered.

The first worker asks; all of them do what it hears, at the same step.
"""

from collections.abc import Sequence

from torch import distributed as dist

from raylora.cluster.events import Event, NoticeEvent, RestartEvent, Tell, emit
from raylora.errors import RayloraError
from raylora.jobs.assignment import Assignment
from raylora.jobs.train import collective
from raylora.jobs.train.observer import NullObserver, StepReport
from raylora.jobs.worker import train_worker
from raylora.sweeps.fused.player import Stopped
from raylora.sweeps.orders import Begin, Close, End, GoOn, Order, Orders, TrialReport, TrialState
from raylora.sweeps.trial import NoLog, Progress, TrialObserver


def run_trial(assignment: Assignment, name: str, orders: Orders) -> TrialReport:
    """Train until the trial is over; what it has come to. Every worker calls it.

    It begins when it is ordered to. The process group is there.
    """
    asking = _Asking(name, orders)
    try:
        begin = asking.begin()
    except Stopped:
        return TrialReport(name, TrialState.STOPPED)
    observer = TrialObserver(begin, asking.ask, NoLog())
    try:
        result = train_worker(assignment, observer, _Leaving(asking), tell=_notices_of(name))
    except Stopped:
        return _report(name, TrialState.STOPPED, observer.progress)
    if isinstance(result, RayloraError):
        return _report(name, TrialState.FAILED, observer.progress, result.message)
    return _report(name, TrialState.FINISHED, observer.progress)


class _Asking:
    """Orders for a single trial. Every worker calls each method; all raise Stopped or none."""

    def __init__(self, name: str, orders: Orders) -> None:
        self._name = name
        self._orders = orders
        self._is_first = dist.get_rank() == 0

    def begin(self) -> Begin:
        """Wait for the order to begin."""
        if self._is_first:
            self._orders.opened()
        order = self._wait(())
        assert isinstance(order, Begin), "a slot that has opened knows of nothing else"
        return order

    def ask(self, progress: Progress) -> None:
        """Report, and wait for the order to go on."""
        self._wait([_report(self._name, TrialState.WAITING, progress)])

    def look(self) -> None:
        """Whether the trial is to end, without waiting."""
        self._exchange((), idle=False)

    def _wait(self, reports: Sequence[TrialReport]) -> Order:
        while True:
            for order in self._exchange(reports, idle=True):
                if isinstance(order, Begin | GoOn):
                    return order
            reports = ()

    def _exchange(self, reports: Sequence[TrialReport], idle: bool) -> Sequence[Order]:
        # Each answer goes to all at once: whoever waits too long for a collective gives up.
        given = self._orders.exchange(reports, idle) if self._is_first else ()
        given = collective.from_first(given)
        if any(isinstance(order, End | Close) for order in given):
            raise Stopped
        return given


class _Leaving(NullObserver):
    """Ends the trial at the next step after it was told to."""

    def __init__(self, asking: _Asking) -> None:
        self._asking = asking

    def stepped(self, report: StepReport) -> None:
        """Look for an order."""
        self._asking.look()


def _notices_of(name: str) -> Tell:
    """Of a trial's events those that a sweep's log has room for."""

    def tell(event: Event) -> None:
        match event:
            case NoticeEvent(text):
                emit(NoticeEvent(f"trial {name}: {text}"))
            case RestartEvent(resumed_step=step):
                emit(NoticeEvent(f"trial {name}: its workers began again after step {step}"))
            case _:
                pass

    return tell


def _report(name: str, state: TrialState, progress: Progress, error: str = "") -> TrialReport:
    return TrialReport(name, state, progress.step, progress.metrics, error)
