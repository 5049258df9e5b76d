"""Aliases that move."""

import asyncio

import pytest
from tests.serve.adapters.replica import POLL_S, answered, followed, soon, state

from raylora.serve.adapters.resident import AdapterState


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
