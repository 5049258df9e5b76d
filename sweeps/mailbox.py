"""Between the trials of Ray Tune and the slots: an actor that both sides call, without torch.

A trial asks to advance and waits for its next report. A slot hands over reports and takes orders,
and waits where it has nothing to do. A sweep that is resumed gives its trials their recorded
reports again, in the recorded order, before anything trains: schedulers then stand where they did.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from raylora.errors import JobFailed
from raylora.sweeps.orders import Begin, Close, End, GoOn, Order, Threads, TrialReport, TrialState
from raylora.sweeps.report_order import AsTheyCome, ReportOrder, Turns
from raylora.sweeps.spare_threads import Place, threads_of

IDLE_S = 5.0
"""A slot without work hears so often that there is none: a call that never ends looks hung."""
HEARD_S = 2.0
"""How long the next report waits for an answer to the one before it: Ray Tune may have none."""
GATHER_S = 0.25
"""How long orders wait for those of other trials that have just reported, so that all train in one
pass. Ray Tune takes 6 to 28 ms from a trial's result to its next step."""
IN_ORDER_S = 60.0
"""How long a recorded report waits for its turn: trials begin some seconds apart."""


class Mailbox:
    """An actor whose methods run in one event loop."""

    def __init__(
        self, history: Sequence[TrialReport] = (), order: ReportOrder | None = None
    ) -> None:
        """`history` is what trials have reported before, in order; `order` is that of others."""
        self._history = list(history)
        self._order_of = order or AsTheyCome()
        self._begin: dict[str, Begin] = {}
        self._slot_of: dict[str, str] = {}
        self._slots: dict[str, _Slot] = {}
        self._places: dict[str, Place] = {}
        """Of open slots that lend each other threads."""
        self._last: dict[str, TrialReport] = {}
        self._awaited: dict[str, asyncio.Future[TrialReport]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        """Kept: asyncio holds its tasks weakly."""
        self._stopped: set[str] = set()
        """Trials that a user has stopped."""
        self._changed = asyncio.Condition()
        self._closed = ""
        """Why, once no slot takes orders any more."""

    async def announce(self, trial: Begin, slot: str) -> None:
        """Say what a trial trains and where, before it advances for the first time.

        One that was ended may begin again, from another state.
        """
        self._last.pop(trial.name, None)
        self._begin[trial.name] = trial
        self._slot_of[trial.name] = slot

    async def advance(self, name: str) -> TrialReport:
        """Let a trial train, and wait until it reports or is over.

        Raises JobFailed where it has failed, and at the end.
        """
        report = await self._recorded(name) or await self._next(name)
        if report.state is TrialState.FAILED:
            raise JobFailed(report.error)
        return report

    async def end(self, name: str) -> TrialReport:
        """Take a trial out of its slot, if it is in; what it has come to."""
        async with self._changed:
            self._history = [report for report in self._history if report.name != name]
            self._changed.notify_all()
        gone = await self._leave(name)
        self._answer(gone)
        return gone

    async def stop(self, name: str) -> None:
        """End a trial for the user: what waits for it, or asks next, hears that it is stopped."""
        self._stopped.add(name)
        if name in self._awaited:
            self._answer(await self._leave(name))

    async def opened(self, slot: str, place: Place | None = None) -> None:
        """See Orders. A slot that has a place may be told to compute with other threads."""
        here = self._slot(slot)
        if place is not None:
            self._places[slot] = place
            here.threads = place.threads
        here.orders = [order for order in here.orders if isinstance(order, Close | End)]
        training = [name for name, report in here.reports.items() if report is None]
        here.reports = dict.fromkeys(training)
        for name in training:
            await self._order(here, self._beginning(name))

    async def exchange(self, slot: str, reports: Sequence[TrialReport], idle: bool) -> list[Order]:
        """See Orders."""
        here = self._slot(slot)
        fresh = [report for report in reports if self._take_in(here, report)]
        if fresh:
            self._tell(here, self._order_of.turns(fresh))
        if idle:
            async with self._changed:
                await self._wait(lambda: bool(here.orders), IDLE_S)
                await self._wait(lambda: not here.untold, HEARD_S * len(reports))
                await self._wait(here.all_have_spoken, GATHER_S)
        orders, here.orders = here.orders, []
        return [*self._threads(slot, here), *orders]

    async def close(self, why: str = "the sweep is over", slot: str | None = None) -> None:
        """Let a slot end, or all of them; trials that still wait raise."""
        if slot is None:
            self._closed = why
        for name in list(self._slots) if slot is None else [slot]:
            here = self._slot(name)
            here.closed = why
            for trial in here.reports:
                future = self._awaited.get(trial)
                if future is not None and not future.done():
                    future.set_exception(JobFailed(why))
            await self._order(here, Close())

    async def _recorded(self, name: str) -> TrialReport | None:
        """The trial's next report of an earlier attempt, when it is its turn."""
        if not any(report.name == name for report in self._history):
            return None
        async with self._changed:
            await self._wait(
                lambda: not self._history or self._history[0].name == name, IN_ORDER_S
            )
            report = next((report for report in self._history if report.name == name), None)
            if report is None:  # it was ended meanwhile
                return None
            self._history.remove(report)
            self._changed.notify_all()
        self._last[name] = report
        self._order_of.noted(report)
        return report

    async def _next(self, name: str) -> TrialReport:
        """Of what trains in a slot."""
        slot = self._slot(self._slot_of[name])
        if slot.closed:
            raise JobFailed(slot.closed)
        if name in self._stopped:
            return await self._leave(name)
        future = self._awaited[name] = asyncio.get_running_loop().create_future()
        order = GoOn(name) if name in slot.reports else self._beginning(name)
        slot.reports[name] = None
        await self._order(slot, order)
        return await future

    def _slot(self, name: str) -> "_Slot":
        if name not in self._slots:
            slot = self._slots[name] = _Slot(closed=self._closed)
            slot.orders += [Close()] if self._closed else []
        return self._slots[name]

    def _threads(self, name: str, slot: "_Slot") -> list[Order]:
        """An order where a slot with trials is to compute with more or fewer than it does."""
        if name not in self._places or not slot.reports:
            return []
        trials = {other: len(self._slots[other].reports) for other in self._places}
        count, before = threads_of(name, self._places, trials), slot.threads
        slot.threads = count
        return [] if count == before else [Threads(count)]

    def _beginning(self, name: str) -> Begin:
        """What it has reported before it need not report again."""
        last = self._last.get(name)
        return replace(self._begin[name], after_step=last.step if last else 0)

    def _take_in(self, slot: "_Slot", report: TrialReport) -> bool:
        """Whether anybody waits for it."""
        # Who ended it has had an answer, and it may have begun again; or this crossed the order.
        if report.state is TrialState.STOPPED or report.name not in slot.reports:
            return False
        if report.state.is_over:
            del slot.reports[report.name]
        else:
            slot.reports[report.name] = report
        self._last[report.name] = report
        return True

    def _tell(self, slot: "_Slot", turns: Turns) -> None:
        first, *later = turns
        for report in first:
            self._answer(report)
        if later:
            slot.untold += 1
            task = asyncio.create_task(self._tell_later(slot, first, later))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell_later(self, slot: "_Slot", told: Sequence[TrialReport], turns: Turns) -> None:
        async with self._changed:
            for turn in turns:
                await self._wait(lambda told=told: slot.have_spoken(told), HEARD_S)
                for report in turn:
                    self._answer(report)
                told = turn
            slot.untold -= 1
            self._changed.notify_all()

    async def _leave(self, name: str) -> TrialReport:
        """Out of its slot, if it is in one; what it has come to."""
        place = self._slot_of.get(name)
        if place is not None:
            slot = self._slot(place)
            # Workers of its own may not have asked for it yet: they have to hear that they never
            # will.
            if name in slot.reports or place == name:
                slot.reports.pop(name, None)
                await self._order(slot, End(name))
        last = self._last.get(name) or TrialReport(name, TrialState.STOPPED)
        return last if last.state.is_over else replace(last, state=TrialState.STOPPED)

    def _answer(self, report: TrialReport) -> None:
        future = self._awaited.pop(report.name, None)
        if future is not None and not future.done():
            future.set_result(report)

    async def _order(self, slot: "_Slot", order: Order) -> None:
        async with self._changed:
            slot.orders.append(order)
            self._changed.notify_all()

    async def _wait(self, until: Callable[[], bool], seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait_for(until), seconds)


@dataclass
class _Slot:
    """Orders for a slot, and the trials in it."""

    closed: str
    """Why it takes no trials any more; empty while it does."""
    orders: list[Order] = field(default_factory=list[Order])
    reports: dict[str, TrialReport | None] = field(default_factory=dict[str, TrialReport | None])
    """Last report of each trial that is in the slot; None while it trains."""
    threads: int = 0
    """It computes with, where it is open and lends."""
    untold: int = 0
    """Exchanges of which not all reports have been told."""

    def all_have_spoken(self) -> bool:
        """Whether no trial has reported without an order since."""
        return all(report is None for report in self.reports.values())

    def have_spoken(self, reports: Sequence[TrialReport]) -> bool:
        """Whether these trials have had an order since, or are gone."""
        return all(self.reports.get(report.name) is None for report in reports)
