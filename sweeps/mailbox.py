"""Between the trials of Ray Tune and a slot: an actor that both sides call, without torch.

A trial asks to advance and waits for its next report. The slot hands over reports and takes
orders, and waits where it has nothing to do.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from raylora.errors import JobFailed
from raylora.sweeps.orders import Begin, Close, End, GoOn, Order, TrialReport, TrialState

IDLE_S = 5.0
"""A slot without work hears so often that there is none: a call that never ends looks hung."""
GATHER_S = 0.25
"""How long orders wait for those of other trials that have just reported, so that all train in one
pass. Ray Tune takes 6 to 28 ms from a trial's result to its next step."""


class Mailbox:
    """An actor whose methods run in one event loop."""

    def __init__(self) -> None:
        self._announced: dict[str, Begin] = {}
        self._orders: list[Order] = []
        self._in_slot: dict[str, TrialReport | None] = {}
        """Last report of each trial that is in the slot; None while it trains."""
        self._awaited: dict[str, asyncio.Future[TrialReport]] = {}
        self._changed = asyncio.Condition()
        self._closed: str | None = None

    async def announce(self, trial: Begin) -> None:
        """Say what a trial trains, before it advances for the first time."""
        self._announced[trial.name] = trial

    async def advance(self, name: str) -> TrialReport:
        """Let a trial train, and wait until it reports or is over. Raises JobFailed at the end."""
        if self._closed is not None:
            raise JobFailed(self._closed)
        future = self._awaited[name] = asyncio.get_running_loop().create_future()
        order = GoOn(name) if name in self._in_slot else self._announced.pop(name)
        self._in_slot[name] = None
        await self._order(order)
        return await future

    async def end(self, name: str) -> None:
        """Take a trial out of the slot, if it is in; whoever waits for it hears of it."""
        self._announced.pop(name, None)
        if name in self._in_slot:
            report = self._in_slot.pop(name)
            await self._order(End(name))
            self._answer(report or TrialReport(name, TrialState.STOPPED))

    async def exchange(self, reports: Sequence[TrialReport], idle: bool) -> list[Order]:
        """See Orders."""
        for report in reports:
            self._take_in(report)
        if idle:
            async with self._changed:
                await self._wait(lambda: bool(self._orders), IDLE_S)
                await self._wait(self._all_have_spoken, GATHER_S)
        orders, self._orders = self._orders, []
        return orders

    async def close(self, why: str = "the sweep is over") -> None:
        """Let the slot end; trials that still wait raise."""
        self._closed = why
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(JobFailed(why))
        await self._order(Close())

    def _take_in(self, report: TrialReport) -> None:
        if report.name not in self._in_slot:  # it was ended; this crossed the order
            return
        if report.state.is_over:
            del self._in_slot[report.name]
        else:
            self._in_slot[report.name] = report
        self._answer(report)

    def _answer(self, report: TrialReport) -> None:
        future = self._awaited.pop(report.name, None)
        if future is not None and not future.done():
            future.set_result(report)

    def _all_have_spoken(self) -> bool:
        """Whether no trial in the slot has reported without an order since."""
        return all(report is None for report in self._in_slot.values())

    async def _order(self, order: Order) -> None:
        async with self._changed:
            self._orders.append(order)
            self._changed.notify_all()

    async def _wait(self, until: Callable[[], bool], seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait_for(until), seconds)
