"""Both sides of the mailbox, in one event loop: no cluster."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from raylora.config.sweep_spec import Mode
from raylora.errors import JobFailed
from raylora.sweeps import mailbox as module
from raylora.sweeps.mailbox import Mailbox
from raylora.sweeps.orders import Begin, Close, End, GoOn, Threads, TrialReport, TrialState
from raylora.sweeps.report_order import ByRung
from raylora.sweeps.spare_threads import Place

SLOT = "slot"


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
        await box.announce(trial(name), SLOT)
        tasks[name] = asyncio.create_task(box.advance(name))
    await settled()
    assert await box.exchange(SLOT, [], idle=True) == [trial(name) for name in names]
    return tasks


def test_a_trial_begins_reports_goes_on_and_finishes():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "a")
        assert await box.exchange(SLOT, [waiting("a")], idle=False) == []
        assert await tasks["a"] == waiting("a")
        task = asyncio.create_task(box.advance("a"))
        assert await box.exchange(SLOT, [], idle=True) == [GoOn("a")]
        finished = TrialReport("a", TrialState.FINISHED, 10)
        await box.exchange(SLOT, [finished], idle=False)
        assert await task == finished

    run(test())


def test_the_slot_waits_for_all_that_have_reported():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "a", "b")
        slot = asyncio.create_task(box.exchange(SLOT, [waiting("a"), waiting("b")], idle=True))
        await asyncio.gather(*tasks.values())
        first = asyncio.create_task(box.advance("a"))
        await settled()
        assert not slot.done()
        second = asyncio.create_task(box.advance("b"))
        assert await slot == [GoOn("a"), GoOn("b")]
        first.cancel()
        second.cancel()

    run(test())


def test_where_order_matters_a_report_is_told_when_the_one_before_it_is_answered():
    async def test() -> None:
        box = Mailbox(order=ByRung("loss", Mode.MIN, 2))
        tasks = await begun(box, "a", "b")
        reports = [replace(waiting(n), metrics={"loss": v}) for n, v in (("a", 2.0), ("b", 1.0))]
        slot = asyncio.create_task(box.exchange(SLOT, reports, idle=True))
        assert (await tasks["b"]).name == "b"
        await settled()
        assert not tasks["a"].done()
        first = asyncio.create_task(box.advance("b"))
        assert (await tasks["a"]).name == "a"
        await box.end("a")
        assert await slot == [GoOn("b"), End("a")]
        first.cancel()

    run(test())


def test_a_report_without_an_answer_does_not_keep_the_next_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "HEARD_S", 0.05)

    async def test() -> None:
        box = Mailbox(order=ByRung("loss", Mode.MIN, 2))
        tasks = await begun(box, "a", "b")
        reports = [replace(waiting(name), metrics={"loss": 1.0}) for name in tasks]
        await box.exchange(SLOT, reports, idle=False)
        assert {report.name for report in await asyncio.gather(*tasks.values())} == {"a", "b"}

    run(test())


def test_a_trial_that_was_ended_begins_again_from_another_state():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "a")
        await box.exchange(SLOT, [waiting("a", 10)], idle=False)
        assert (await tasks["a"]).step == 10
        assert (await box.end("a")).state is TrialState.STOPPED
        again = replace(trial("a"), report_steps=7)
        await box.announce(again, SLOT)
        task = asyncio.create_task(box.advance("a"))
        await settled()
        assert await box.exchange(SLOT, [], idle=True) == [End("a"), again]
        stopped = TrialReport("a", TrialState.STOPPED, 10)  # what the first order led to
        await box.exchange(SLOT, [stopped, waiting("a", 12)], idle=False)
        assert await task == waiting("a", 12)

    run(test())


def test_a_trial_that_says_nothing_holds_the_others_up_for_a_moment_only():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "a", "silent")
        slot = asyncio.create_task(
            box.exchange(SLOT, [waiting("a"), waiting("silent")], idle=True)
        )
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
        assert await box.exchange(SLOT, [waiting("a")], idle=True) == [End("a")]
        await box.end("a")  # twice is no harm
        await box.end("unknown")
        assert await box.exchange(SLOT, [], idle=False) == []

    run(test())


def test_a_slot_hears_of_its_own_trials_only():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "a")
        await box.announce(trial("b"), "another slot")
        other = asyncio.create_task(box.advance("b"))
        await settled()
        assert await box.exchange("another slot", [], idle=True) == [trial("b")]
        await box.close("its workers are lost", "another slot")
        with pytest.raises(JobFailed, match="its workers are lost"):
            await other
        await box.exchange(SLOT, [waiting("a")], idle=False)
        assert await tasks["a"] == waiting("a")

    run(test())


def test_a_slot_that_opens_again_is_given_its_trials_again():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "trains", "waits", "new")
        reports = [waiting("trains", 5), waiting("waits", 5)]
        await box.exchange(SLOT, reports, idle=False)
        await asyncio.gather(tasks["trains"], tasks["waits"])
        tasks["trains"] = asyncio.create_task(box.advance("trains"))
        await settled()
        await box.opened(SLOT)
        again = replace(trial("trains"), after_step=5)
        assert await box.exchange(SLOT, [], idle=True) == [again, trial("new")]
        tasks["waits"] = asyncio.create_task(box.advance("waits"))
        await settled()
        assert await box.exchange(SLOT, [], True) == [replace(trial("waits"), after_step=5)]
        for task in tasks.values():
            task.cancel()

    run(test())


def test_workers_of_a_trials_own_hear_of_its_end_whenever_it_comes():
    async def test() -> None:
        box = Mailbox()
        # before anybody has asked
        await box.announce(trial("early"), "early")
        await box.end("early")
        await box.opened("early")
        assert await box.exchange("early", [], idle=True) == [End("early")]
        # while it waits, and its workers begin again
        await box.announce(trial("late"), "late")
        task = asyncio.create_task(box.advance("late"))
        await settled()
        await box.exchange("late", [waiting("late")], idle=False)
        assert await task == waiting("late")
        await box.opened("late")
        await box.end("late")
        assert await box.exchange("late", [], idle=True) == [End("late")]

    run(test())


def test_an_order_to_begin_that_was_taken_is_given_again_to_workers_that_open():
    async def test() -> None:
        box = Mailbox()
        await box.announce(trial("own"), "own")
        task = asyncio.create_task(box.advance("own"))
        await settled()
        assert await box.exchange("own", [], idle=True) == [trial("own")]
        await box.opened("own")
        assert await box.exchange("own", [], idle=True) == [trial("own")]
        finished = TrialReport("own", TrialState.FINISHED, 10)
        await box.exchange("own", [finished], idle=False)
        assert await task == finished

    run(test())


def test_a_trial_that_a_user_stops_says_so_with_what_it_had_come_to():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "trains", "waits")
        await box.exchange(SLOT, [waiting("trains"), waiting("waits")], idle=False)
        await asyncio.gather(*tasks.values())
        training = asyncio.create_task(box.advance("trains"))
        await settled()
        for name in tasks:
            await box.stop(name)
        assert await training == TrialReport("trains", TrialState.STOPPED, 5)
        assert await box.advance("waits") == TrialReport("waits", TrialState.STOPPED, 5)
        given = await box.exchange(SLOT, [], idle=True)
        assert given == [GoOn("trains"), End("trains"), End("waits")]

    run(test())


def test_recorded_reports_are_given_again_in_their_order_before_anything_trains():
    over = TrialReport("b", TrialState.FINISHED, 10)

    async def test() -> None:
        box = Mailbox([waiting("a"), waiting("b"), over, waiting("a", 10)])
        for name in ("a", "b"):
            await box.announce(trial(name), SLOT)
        early = asyncio.create_task(box.advance("b"))
        await settled()
        assert not early.done()  # b was the second
        assert await box.advance("a") == waiting("a")
        assert await early == waiting("b")
        assert await box.advance("b") == over
        assert await box.advance("a") == waiting("a", 10)
        new = asyncio.create_task(box.advance("a"))
        given = await box.exchange(SLOT, [], idle=True)
        assert given == [replace(trial("a"), after_step=10)]
        new.cancel()

    run(test())


def test_a_recorded_report_whose_turn_does_not_come_is_given_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(module, "IN_ORDER_S", 0.05)

    async def test() -> None:
        box = Mailbox([waiting("gone"), waiting("a")])
        await box.announce(trial("a"), SLOT)
        assert await box.advance("a") == waiting("a")

    run(test())


def test_an_idle_slot_is_answered_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "IDLE_S", 0.05)

    async def test() -> None:
        assert await Mailbox().exchange(SLOT, [], idle=True) == []

    run(test())


def test_closing_ends_the_slot_and_whoever_waits():
    async def test() -> None:
        box = Mailbox()
        tasks = await begun(box, "a")
        await box.close("the slot is lost")
        with pytest.raises(JobFailed, match="the slot is lost"):
            await tasks["a"]
        assert await box.exchange(SLOT, [], idle=True) == [Close()]
        await box.announce(trial("b"), "another slot")
        with pytest.raises(JobFailed, match="the slot is lost"):
            await box.advance("b")
        assert await box.exchange("another slot", [], idle=True) == [Close()]

    run(test())


def test_a_slot_computes_with_the_threads_of_one_that_has_no_trials(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(module, "IDLE_S", 0.05)
    other = "other"

    async def test() -> None:
        box = Mailbox()
        await box.opened(SLOT, Place("node", 1))
        await begun(box, "a")
        assert await box.exchange(SLOT, [], idle=False) == []
        await box.opened(other, Place("node", 1))
        assert await box.exchange(SLOT, [], idle=False) == [Threads(2)]
        assert await box.exchange(SLOT, [], idle=False) == []

        await box.announce(trial("b"), other)
        asyncio.create_task(box.advance("b"))
        await settled()
        assert await box.exchange(other, [], idle=True) == [trial("b")]
        assert await box.exchange(SLOT, [], idle=False) == [Threads(1)]

        await box.exchange(other, [TrialReport("b", TrialState.FINISHED, 10)], idle=False)
        assert await box.exchange(SLOT, [], idle=False) == [Threads(2)]

    run(test())


def test_a_slot_that_lends_nothing_is_told_nothing_of_threads():
    async def test() -> None:
        box = Mailbox()
        await box.opened(SLOT)
        await begun(box, "a")
        await box.opened("other", Place("node", 1))
        assert await box.exchange(SLOT, [], idle=False) == []

    run(test())
