"""Requests from asyncio to the engine's thread and events back."""

import asyncio
import threading

import pytest

from raylora.engine.request import FinishReason, Request
from raylora.engine.sampling import Sampling
from raylora.serve.engine_thread import EngineThread


def request(engine, name: str, text: str = "hello") -> Request:
    return Request(name, tuple(engine.tokenizer.encode(text)), None, Sampling(max_new_tokens=50))


@pytest.fixture
def thread(engine):
    made = EngineThread(engine)
    made.start()
    yield made
    engine.may_step.set()
    made.stop()


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
    assert not thread.is_alive
