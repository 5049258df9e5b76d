"""A replica that restarts comes back to what it held."""

import asyncio
import time
from typing import Any

from tests.serve.adapters.replica import answered, soon

from raylora.serve.adapters.remembered import MemoryFile, Remembered
from raylora.serve.adapters.residency import Residency


def test_a_replica_that_restarts_holds_what_it_held(live, registry, slots, folders):
    before = live()
    slots.capacity = 4
    adapter = folders.root / "mine"
    adapter.mkdir()
    (adapter / "weights").write_text("1")

    async def first() -> None:
        await answered(before, "home")
        await before.load("sums", pin=True)
        await before.load_folder("mine", str(adapter))

    asyncio.run(first())
    held = sorted(slots.keys)
    slots.keys.clear()
    registry.put("home", 3, champion=3)
    after = live()
    asyncio.run(after.restore(()))
    assert sorted(slots.keys) == sorted({*held, "home@3"} - {"home@2"})
    assert {key.partition("@")[0] for key in after.pinned} == {"sums", "mine"}


def test_what_was_asked_for_once_is_there_after_a_restart(live, slots, state_file):
    async def ask(residency: Residency) -> None:
        await answered(residency, "home@1")
        await soon(state_file.is_file)

    asyncio.run(ask(live()))
    slots.keys.clear()
    asyncio.run(live().restore(()))
    assert slots.keys == ["home@1"]


def test_a_restart_that_breaks_off_forgets_nothing(live, slots, state_file, monkeypatch):
    slots.capacity = 4

    async def first() -> None:
        await live().load("sums", pin=True)
        residency = live()
        for name in ("home@1", "home@3"):
            await residency.load(name, pin=False)

    asyncio.run(first())
    before = state_file.read_bytes()
    slots.keys.clear()
    add = slots.add

    async def breaks_off() -> None:
        restoring = asyncio.ensure_future(live().restore(()))
        await soon(lambda: bool(slots.keys))
        restoring.cancel()
        await asyncio.gather(restoring, return_exceptions=True)

    async def hangs(key: str, *given: Any, **more: Any) -> Any:
        if slots.keys:
            await asyncio.sleep(60)
        return await add(key, *given, **more)

    monkeypatch.setattr(slots, "add", hangs)
    asyncio.run(breaks_off())
    assert state_file.read_bytes() == before


def test_what_is_remembered_is_the_newest_however_slow_the_disk(live, state_file, monkeypatch):
    write, times = MemoryFile.write, iter([0.2, 0.0])

    def slow(self: MemoryFile, remembered: Remembered) -> None:
        time.sleep(next(times, 0.0))
        write(self, remembered)

    monkeypatch.setattr(MemoryFile, "write", slow)
    residency = live()

    async def work() -> None:
        await asyncio.gather(
            residency.load("home@1", pin=True), residency.load("sums@1", pin=True)
        )
        await asyncio.sleep(1.0)

    asyncio.run(work())
    assert MemoryFile(state_file).read().pins == ("home@1", "sums@1")


def test_replicas_that_share_a_file_keep_each_others_rollbacks(state_file):
    MemoryFile(state_file).write(Remembered(rolled_back=("home@3",)))
    MemoryFile(state_file).write(Remembered(rolled_back=("sums@2",)))
    assert MemoryFile(state_file).read().rolled_back == ("home@3", "sums@2")


def test_a_state_file_that_is_damaged_costs_the_state_only(live, slots, state_file, caplog):
    state_file.parent.mkdir()
    state_file.write_text("{")
    asyncio.run(live().restore(["sums"]))
    assert slots.keys == ["sums@1"]
    assert "endpoint.json" in caplog.text
