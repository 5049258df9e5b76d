"""Requests from asyncio to the engine's thread and events back."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from raylora.engine.request import FinishReason, Request
from raylora.engine.sampling import Sampling
from raylora.errors import RayloraError
from raylora.serve.engine_thread import EngineThread


def request(engine, name: str, text: str = "hello") -> Request:
    return Request(name, tuple(engine.tokenizer.encode(text)), None, Sampling(max_new_tokens=50))


@contextmanager
def running(engine, step_timeout_s: float) -> Iterator[EngineThread]:
    made = EngineThread(engine, step_timeout_s=step_timeout_s)
    made.start()
    try:
        yield made
    finally:
        engine.may_step.set()
        made.stop()


@pytest.fixture
def thread(engine) -> Iterator[EngineThread]:
    with running(engine, step_timeout_s=60) as made:
        yield made


@pytest.fixture
def hasty(engine) -> Iterator[EngineThread]:
    """Takes a step for one that hangs after a quarter of a second."""
    with running(engine, step_timeout_s=0.25) as made:
        yield made


def test_events_come_back_to_their_own_request(engine, thread):
    async def text_of(name: str) -> str:
        events = thread.stream([request(engine, name, f"I am {name}")])
        return "".join([event.text async for event in events])

    async def ask() -> list[str]:
        return await asyncio.gather(*(text_of(f"r{i}") for i in range(20)))

    assert asyncio.run(ask()) == [f"[base] I am r{i}" for i in range(20)]
    assert thread.open_requests == 0


def test_closing_a_stream_cancels_its_row(engine, thread):
    engine.step_seconds = 0.05

    async def ask() -> None:
        events = thread.stream([request(engine, "gone"), request(engine, "too")])
        await anext(events)
        await events.aclose()
        await thread.call(lambda: None)

    asyncio.run(ask())
    assert set(engine.cancelled) == {"gone", "too"}
    assert thread.open_requests == 0
    assert not engine.has_work


def test_calls_run_on_the_engines_thread_and_their_errors_come_back(thread):
    async def ask() -> str:
        with pytest.raises(ZeroDivisionError):
            await thread.call(lambda: 1 // 0)
        return await thread.call(lambda: threading.current_thread().name)

    assert asyncio.run(ask()) == "engine"


def test_an_engine_that_breaks_ends_its_requests_and_says_so(engine, thread, monkeypatch):
    def broken() -> list:
        raise RuntimeError("device lost")

    monkeypatch.setattr(engine, "step", broken)

    async def ask():
        return [event async for event in thread.stream([request(engine, "a")])]

    [event] = asyncio.run(ask())
    assert event.completion is not None
    assert event.completion.finish_reason is FinishReason.ERROR
    assert "device lost" in event.completion.error
    thread.stop()
    assert "device lost" in thread.failure


def test_a_request_that_the_engine_cannot_take_ends_alone(engine, thread, monkeypatch):
    takes = engine.add

    def add(wanted: Request) -> None:
        if wanted.id == "bad":
            raise ValueError("no such grammar")
        takes(wanted)

    monkeypatch.setattr(engine, "add", add)

    async def ask(name: str) -> FinishReason | None:
        events = thread.stream([request(engine, name)])
        [*_, last] = [event async for event in events]
        return last.completion and last.completion.finish_reason

    async def both() -> list[FinishReason | None]:
        async with asyncio.timeout(5):
            return [await ask("bad"), await ask("good")]

    assert asyncio.run(both()) == [FinishReason.ERROR, FinishReason.STOP]
    assert thread.failure is None


def test_what_comes_after_an_engine_broke_is_refused_at_once(engine, thread, monkeypatch):
    def broken() -> list:
        raise RuntimeError("device lost")

    monkeypatch.setattr(engine, "step", broken)

    async def ask() -> list[str]:
        async with asyncio.timeout(5):
            found = []
            for name in ("during", "after"):
                [event] = [event async for event in thread.stream([request(engine, name)])]
                assert event.completion is not None
                found.append(event.completion.error)
            with pytest.raises(RayloraError, match="device lost"):
                await thread.call(lambda: None)
            return found

    during, after = asyncio.run(ask())
    assert "device lost" in during
    assert "device lost" in after
    assert thread.open_requests == 0


def test_a_call_that_is_given_up_leaves_the_thread_working(thread):
    async def ask() -> str:
        busy, free = threading.Event(), threading.Event()
        first = asyncio.ensure_future(thread.call(lambda: (busy.set(), free.wait(5))))
        await asyncio.to_thread(busy.wait, 5)
        second = asyncio.ensure_future(thread.call(lambda: None))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        free.set()
        await first
        return await thread.call(lambda: "works")

    assert asyncio.run(ask()) == "works"


def test_stopping_ends_what_is_open(engine, thread):
    engine.may_step.clear()

    async def ask() -> str:
        async with asyncio.timeout(5):
            events = thread.stream([request(engine, "a")])
            first = asyncio.ensure_future(anext(events))
            while not engine.has_work:
                await asyncio.sleep(0.01)
            stopping = asyncio.ensure_future(asyncio.to_thread(thread.stop))
            await asyncio.sleep(0.2)
            engine.may_step.set()
            await stopping
            event = await first
            while event.completion is None:
                event = await anext(events)
            return event.completion.error

    assert "stopped" in asyncio.run(ask())


async def errors_of(thread: EngineThread, *requests: Request) -> list[str]:
    return [
        event.completion.error
        async for event in thread.stream(requests)
        if event.completion is not None
    ]


def test_a_step_that_hangs_ends_what_is_open_and_what_comes(engine, hasty):
    engine.may_step.clear()

    async def ask() -> list[str]:
        async with asyncio.timeout(5):
            found = await errors_of(hasty, request(engine, "a"), request(engine, "b"))
            found += await errors_of(hasty, request(engine, "after"))
            with pytest.raises(RayloraError, match="hangs"):
                await hasty.call(lambda: None)
            assert await hasty.stats() is None
            return found

    assert asyncio.run(ask()) == [hasty.failure] * 3
    assert "hangs" in hasty.failure
    assert hasty.open_requests == 0
    hasty.stop()


def test_a_step_that_comes_back_after_all_says_nothing_more(engine, hasty):
    engine.may_step.clear()

    async def ask() -> list[str]:
        async with asyncio.timeout(5):
            events = hasty.stream([request(engine, "a"), request(engine, "b")])
            told = [await anext(events)]
            engine.may_step.set()
            told += [event async for event in events]
            return [event.completion.finish_reason for event in told]

    assert asyncio.run(ask()) == [FinishReason.ERROR] * 2
    assert "hangs" in hasty.failure


def test_a_call_that_hangs_ends_what_waits_behind_it(engine, hasty):
    busy, free = threading.Event(), threading.Event()

    async def ask() -> list[object]:
        async with asyncio.timeout(5):
            hanging = asyncio.ensure_future(hasty.call(lambda: (busy.set(), free.wait(5))))
            await asyncio.to_thread(busy.wait, 5)
            return await asyncio.gather(
                hanging,
                hasty.call(lambda: None),
                errors_of(hasty, request(engine, "a")),
                return_exceptions=True,
            )

    *calls, told = asyncio.run(ask())
    free.set()
    assert told == [hasty.failure]
    assert [str(error) for error in calls] == [hasty.failure] * 2
    assert "hangs" in hasty.failure


def test_an_engine_without_work_does_not_hang(engine):
    async def ask(thread: EngineThread) -> list[str]:
        await asyncio.sleep(1.5)
        return await errors_of(thread, request(engine, "a"))

    with running(engine, step_timeout_s=1.0) as thread:
        assert asyncio.run(ask(thread)) == [""]
        assert thread.failure is None
