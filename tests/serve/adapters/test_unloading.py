"""Versions that are told to leave."""

import asyncio
from typing import Any

import pytest
from tests.serve.adapters.replica import answered, followed, soon, state

from raylora.errors import NotFound
from raylora.serve.adapters.resident import AdapterState


def test_unloading_waits_for_running_requests(live, slots):
    residency = live()

    async def work() -> None:
        running = await residency.acquire("home")
        assert (await residency.unload("home")).state is AdapterState.DRAINING
        assert slots.keys == ["home@2"]
        running.release()
        await soon(lambda: slots.keys == [])
        with pytest.raises(NotFound):
            await residency.unload("home")

    followed(residency, work)


def test_a_version_asked_for_while_it_leaves_leaves_once(live, slots, monkeypatch):
    residency = live()
    add, may_load = slots.add, asyncio.Event()

    async def slow(key: str, *given: Any, **more: Any) -> Any:
        await may_load.wait()
        return await add(key, *given, **more)

    async def work() -> None:
        await answered(residency, "home")
        monkeypatch.setattr(slots, "add", slow)
        loading = asyncio.ensure_future(answered(residency, "sums"))
        await soon(lambda: state(residency, "sums@1") is AdapterState.LOADING)
        await asyncio.sleep(0.05)
        first = asyncio.ensure_future(residency.unload("home"))
        await soon(lambda: state(residency, "home@2") is AdapterState.DRAINING)
        await answered(residency, "home")
        assert state(residency, "home@2") is AdapterState.READY
        second = asyncio.ensure_future(residency.unload("home"))
        await soon(lambda: state(residency, "home@2") is AdapterState.DRAINING)
        may_load.set()
        await asyncio.gather(first, second, loading)
        assert slots.keys == ["sums@1"]

    asyncio.run(work())


def test_unloading_waits_for_a_load_that_is_running(live, registry, slots):
    residency = live()
    registry.may_fetch.clear()

    async def work() -> None:
        asking = asyncio.ensure_future(answered(residency, "home"))
        await soon(lambda: state(residency, "home@2") is AdapterState.LOADING)
        unloading = asyncio.ensure_future(residency.unload("home"))
        await asyncio.sleep(0.02)
        registry.may_fetch.set()
        assert await asking == "home@2"
        await unloading
        await soon(lambda: slots.keys == [])

    asyncio.run(work())
