"""Aliases that move, adapters that are loaded and unloaded by hand, and a restart."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from raylora.errors import InvalidAdapter, NotFound
from raylora.serve.adapters.catalogue import Catalogue
from raylora.serve.adapters.loading import MakeRoom
from raylora.serve.adapters.remembered import MemoryFile, Remembered
from raylora.serve.adapters.residency import Residency
from raylora.serve.adapters.resident import AdapterState

POLL_S = 0.01


@pytest.fixture
def state_file(tmp_path) -> Path:
    return tmp_path / "state" / "endpoint.json"


@pytest.fixture
def live(registry, slots, folders, state_file) -> Callable[[], Residency]:
    """A replica's residency; each call is the replica started anew."""

    def start() -> Residency:
        catalogue = Catalogue(registry.list, fresh_s=POLL_S)
        memory = MemoryFile(state_file)
        return Residency("tiny", catalogue, registry, slots, folders=folders, memory=memory)

    return start


def followed(residency: Residency, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the work beside the loop that asks the registry."""

    async def both() -> None:
        following = asyncio.ensure_future(residency.follow())
        await work()
        following.cancel()

    asyncio.run(both())


async def soon(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


async def answered(residency: Residency, model: str) -> str:
    lease = await residency.acquire(model)
    lease.release()
    return lease.name


def state(residency: Residency, key: str) -> AdapterState | None:
    return next((each.state for each in residency.residents if each.key == key), None)


def test_a_moved_alias_is_loaded_before_it_is_followed_and_nobody_asks(live, registry, slots):
    residency = live()

    async def work() -> None:
        assert await answered(residency, "home") == "home@2"
        registry.put("home", 3, champion=3)
        await soon(lambda: slots.keys == ["home@3"])
        assert await answered(residency, "home") == "home@3"

    followed(residency, work)
    assert registry.fetched == ["home@2", "home@3"]


def test_running_requests_keep_the_version_they_began_with(live, registry, slots):
    residency = live()

    async def work() -> None:
        running = await residency.acquire("home")
        registry.put("home", 3, champion=3)
        await soon(lambda: state(residency, "home@2") is AdapterState.DRAINING)
        assert await answered(residency, "home") == "home@3"
        assert slots.keys == ["home@2", "home@3"]
        running.release()
        await soon(lambda: slots.keys == ["home@3"])

    followed(residency, work)
    assert [each.key for each in residency.residents] == ["home@3"]


def test_an_alias_moved_to_a_bad_version_stays_where_it_was(live, registry, slots):
    residency = live()
    registry.broken.add("home@3")

    async def work() -> None:
        await answered(residency, "home")
        registry.put("home", 3, champion=3)
        await soon(lambda: state(residency, "home@3") is AdapterState.FAILED)
        assert await answered(residency, "home") == "home@2"
        await asyncio.sleep(10 * POLL_S)

    followed(residency, work)
    assert registry.fetched == ["home@2", "home@3"]
    assert slots.keys == ["home@2"]


def test_a_version_that_another_name_still_means_does_not_leave(live, registry, slots):
    residency = live()
    registry.put("home", 3, champion=2, old=2)

    async def work() -> None:
        await answered(residency, "home@old")
        await answered(residency, "home")
        registry.put("home", 3, champion=3, old=2)
        await soon(lambda: "home@3" in slots.keys)
        await asyncio.sleep(10 * POLL_S)

    followed(residency, work)
    assert slots.keys == ["home@2", "home@3"]


def test_fifty_moves_under_requests_fail_none_and_end_at_the_last(live, registry, slots):
    residency = live()
    slots.capacity = 4
    answers: list[str] = []

    async def work() -> None:
        async def ask() -> None:
            while True:
                lease = await residency.acquire("home")
                await asyncio.sleep(0.002)
                assert lease.name in slots.keys
                answers.append(lease.name)
                lease.release()

        asking = [asyncio.ensure_future(ask()) for _ in range(8)]
        for move in range(50):
            registry.put("home", 3, champion=1 + move % 3)
            await asyncio.sleep(POLL_S)
        await soon(lambda: slots.keys == ["home@2"])
        assert not any(task.done() for task in asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    followed(residency, work)
    assert {"home@1", "home@2", "home@3"} == set(answers)


def test_a_pinned_alias_keeps_its_version_and_moves_with_it(live, registry, slots):
    residency = live()

    async def work() -> None:
        await residency.load("home@champion", pin=True)
        for key in ("sums@1", "home@1"):
            await answered(residency, key)
        assert slots.keys == ["home@2", "home@1"]
        registry.put("home", 3, champion=3)
        await soon(lambda: residency.pinned == {"home@3"})
        assert "home@3" in slots.keys

    followed(residency, work)


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


@pytest.mark.parametrize("end", [3, 1], ids=["moves on", "moves back"])
def test_an_alias_that_moves_while_its_version_loads_never_leads_to_that_one(
    live, registry, slots, end
):
    residency = live()
    slots.capacity = 4
    registry.put("home", 3, champion=1)
    answers: list[str] = []

    async def work() -> None:
        answers.append(await answered(residency, "home"))
        registry.may_fetch.clear()
        registry.put("home", 3, champion=2)
        await soon(lambda: "home@2" in registry.fetched)
        registry.held_back = {"home@2"}
        registry.put("home", 3, champion=end)
        await asyncio.sleep(10 * POLL_S)
        registry.may_fetch.set()
        for _ in range(20):
            answers.append(await answered(residency, "home"))
            await asyncio.sleep(POLL_S / 4)
        await soon(lambda: slots.keys == [f"home@{end}"])

    followed(residency, work)
    assert set(answers) == {"home@1", f"home@{end}"}


def test_a_version_whose_name_moved_on_while_it_was_loaded_for_a_request_leaves(
    live, registry, slots
):
    residency = live()
    registry.may_fetch.clear()

    async def work() -> None:
        asking = asyncio.ensure_future(residency.acquire("home"))
        await soon(lambda: "home@2" in registry.fetched)
        registry.put("home", 3, champion=3)
        await soon(lambda: residency.meaning("home") == "home@3")
        registry.may_fetch.set()
        lease = await asking
        assert (lease.name, state(residency, "home@2")) == ("home@2", AdapterState.DRAINING)
        lease.release()
        await soon(lambda: slots.keys == [])

    followed(residency, work)


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
        await asyncio.sleep(0.3)

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


# --- Adapters from folders -----------------------------------------------------------------------


@pytest.fixture
def mine(folders) -> Path:
    folder = folders.root / "mine"
    folder.mkdir()
    (folder / "weights").write_text("1")
    return folder


def test_a_folder_is_served_by_its_name_and_keeps_its_content(live, slots, mine):
    residency = live()

    async def work() -> None:
        await residency.load_folder("mine", "mine")
        key = await answered(residency, "mine")
        assert key.startswith("mine@sha-")
        (mine / "weights").write_text("2")
        with pytest.raises(InvalidAdapter, match="loaded already"):
            await residency.load_folder("mine", "mine")
        await residency.unload("mine")
        await residency.load_folder("mine", "mine")
        assert await answered(residency, "mine") != key

    asyncio.run(work())
    assert len(slots.keys) == 1


@pytest.mark.parametrize("path", ["..", ".", "../allowed-not", "/etc", "nothing", "mine/../.."])
def test_only_folders_below_the_allowed_one_are_taken(live, slots, mine, path):
    residency = live()
    with pytest.raises(InvalidAdapter):
        asyncio.run(residency.load_folder("other", path))
    assert slots.keys == []
    assert list(residency.folders.keys) == []


def test_a_folder_with_a_link_in_it_is_refused(live, slots, mine):
    (mine / "more").symlink_to("/etc/passwd")
    with pytest.raises(InvalidAdapter, match="more is a link"):
        asyncio.run(live().load_folder("mine", "mine"))
    assert slots.keys == []


@pytest.mark.parametrize("name", ["tiny", "home", "../x", "a b"])
def test_a_folder_cannot_take_a_name_that_is_taken_or_none(live, mine, name):
    residency = live()

    async def work() -> None:
        await residency.catalogue.refresh(0)
        with pytest.raises(InvalidAdapter):
            await residency.load_folder(name, "mine")

    asyncio.run(work())


def test_a_folder_that_fails_its_check_leaves_its_name_free(live, slots, mine, monkeypatch):
    async def refuse(
        key: str, directory: Path, make_room: MakeRoom, *, manifest_required: bool
    ) -> None:
        raise InvalidAdapter("rank 999")

    residency = live()
    monkeypatch.setattr(slots, "add", refuse)
    with pytest.raises(InvalidAdapter, match="rank 999"):
        asyncio.run(residency.load_folder("mine", "mine"))
    assert residency.folders.keys == {}
    assert list(residency.residents) == []
