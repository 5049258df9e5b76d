"""Both sides of the mailbox, in one event loop: no cluster."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from raylora.errors import JobFailed
from raylora.sweeps import mailbox as module
from raylora.sweeps.mailbox import Mailbox
from raylora.sweeps.orders import Begin, Close, End, GoOn, TrialReport, TrialState


def trial(name: str) -> Begin:
    return Begin(name, None, "loss", 5)  # type: ignore[arg-type]  # nobody trains it


def waiting(name: str, step: int = 5) -> TrialReport:
    return TrialReport(name, TrialState.WAITING, step)


async def settled() -> None:
    """Let whoever can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


async def begun(box: Mailbox, *names: str) -> dict[str, asyncio.Task[TrialReport]]:
    """Trials that train in the slot; the answers they wait for."""
    tasks: dict[str, asyncio.Task[TrialReport]] = {}
    for name in names:
        await box.announce(trial(name))
        tasks[name] = asyncio.create_task(box.advance(name))
    await settled()
    assert await box.exchange([], idle=True) == [trial(name) for name in names]
    return tasks


def test_a_trial_begins_reports_goes_on_and_finishes():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "a")
        assert await box.exchange([waiting("a")], idle=False) == []
        assert await tasks["a"] == waiting("a")
        task = asyncio.create_task(box.advance("a"))
        assert await box.exchange([], idle=True) == [GoOn("a")]
        finished = TrialReport("a", TrialState.FINISHED, 10)
        await box.exchange([finished], idle=False)
        assert await task == finished

    run(test())


def test_the_slot_waits_for_all_that_have_reported():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "a", "b")
        slot = asyncio.create_task(box.exchange([waiting("a"), waiting("b")], idle=True))
        await asyncio.gather(*tasks.values())
        first = asyncio.create_task(box.advance("a"))
        await settled()
        assert not slot.done()
        second = asyncio.create_task(box.advance("b"))
        assert await slot == [GoOn("a"), GoOn("b")]
        first.cancel()
        second.cancel()

    run(test())


def test_a_trial_that_says_nothing_holds_the_others_up_for_a_moment_only():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "a", "silent")
        slot = asyncio.create_task(box.exchange([waiting("a"), waiting("silent")], idle=True))
        await asyncio.gather(*tasks.values())
        began = time.monotonic()
        task = asyncio.create_task(box.advance("a"))
        assert await slot == [GoOn("a")]
        assert time.monotonic() - began >= module.GATHER_S * 0.9
        task.cancel()

    run(test())


def test_an_ended_trial_leaves_and_a_report_that_crossed_is_dropped():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "a")
        await box.end("a")
        assert (await tasks["a"]).state is TrialState.STOPPED
        assert await box.exchange([waiting("a")], idle=True) == [End("a")]
        await box.end("a")  # twice is no harm
        await box.end("unknown")
        assert await box.exchange([], idle=False) == []

    run(test())


def test_an_idle_slot_is_answered_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "IDLE_S", 0.05)

    async def test() -> None:
        assert await Mailbox().exchange([], idle=True) == []

    run(test())


def test_closing_ends_the_slot_and_whoever_waits():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "a")
        await box.close("the slot is lost")
        with pytest.raises(JobFailed, match="the slot is lost"):
            await tasks["a"]
        assert await box.exchange([], idle=True) == [Close()]
        with pytest.raises(JobFailed, match="the slot is lost"):
            await box.advance("b")

    run(test())
