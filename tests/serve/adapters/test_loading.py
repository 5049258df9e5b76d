"""Which versions are loaded, and which make room."""

import asyncio
from pathlib import Path

import pytest
from tests.serve.adapters.replica import served

from raylora.errors import InvalidAdapter, RayloraError
from raylora.lora.adapter_config import CHAT_TEMPLATE
from raylora.lora.bank.eviction import NoRoom
from raylora.serve.adapters.catalogue import Catalogue
from raylora.serve.adapters.residency import Residency
from raylora.serve.adapters.resident import AdapterState


def test_a_version_is_loaded_once_however_many_ask(residency, registry, slots):
    async def ask() -> None:
        leases = await asyncio.gather(*(residency.acquire("home") for _ in range(20)))
        for lease in leases:
            lease.release()

    asyncio.run(ask())
    assert registry.fetched == ["home@2"]
    assert slots.keys == ["home@2"]
    assert registry.reads == 1


def test_a_client_that_goes_away_leaves_the_load_to_the_others(residency, slots):
    async def ask() -> str:
        first = asyncio.ensure_future(residency.acquire("home"))
        second = asyncio.ensure_future(residency.acquire("home"))
        await asyncio.sleep(0)
        first.cancel()
        return (await second).name

    assert asyncio.run(ask()) == "home@2"
    assert slots.keys == ["home@2"]


def test_the_version_unused_longest_makes_room(residency, slots):
    served(residency, "home@1", "home@2", "home@1", "home@3")
    assert slots.keys == ["home@1", "home@3"]


def test_a_version_that_answers_is_not_unloaded(residency, slots):
    async def ask() -> None:
        held = await residency.acquire("home@1")
        (await residency.acquire("home@2")).release()
        (await residency.acquire("home@3")).release()
        held.release()

    asyncio.run(ask())
    assert slots.keys == ["home@1", "home@3"]


def test_with_every_version_in_use_another_is_refused(residency, slots):
    async def ask() -> None:
        await residency.acquire("home@1")
        await residency.acquire("home@2")
        await residency.acquire("home@3")

    with pytest.raises(NoRoom, match="slots"):
        asyncio.run(ask())
    assert slots.keys == ["home@1", "home@2"]


def test_a_version_without_room_is_loaded_as_soon_as_there_is_some(residency, slots):
    async def ask() -> None:
        first = await residency.acquire("home@1")
        await residency.acquire("home@2")
        with pytest.raises(NoRoom):
            await residency.acquire("home@3")
        first.release()
        assert (await residency.acquire("home@3")).name == "home@3"

    asyncio.run(ask())
    assert slots.keys == ["home@2", "home@3"]


def test_a_bad_version_is_refused_and_not_tried_again_at_once(residency, registry, slots):
    registry.broken.add("home@2")
    served(residency, "home@1")
    for _ in range(5):
        with pytest.raises(InvalidAdapter, match="another base"):
            served(residency, "home")
    assert registry.fetched == ["home@1", "home@2"]
    assert slots.keys == ["home@1"]
    assert [r.state for r in residency.residents] == [AdapterState.READY, AdapterState.FAILED]


def test_a_load_that_fails_in_an_unknown_way_is_a_failure_like_others(
    residency, registry, slots, monkeypatch
):
    fetch = registry.fetch

    def full(reference: str) -> Path:
        fetch(reference)
        raise OSError("no space left on device")

    monkeypatch.setattr(registry, "fetch", full)
    for _ in range(3):
        with pytest.raises(RayloraError, match="home@2 cannot be loaded: no space left"):
            served(residency, "home")
    assert registry.fetched == ["home@2"]
    assert [r.state for r in residency.residents] == [AdapterState.FAILED]


def test_a_template_that_is_no_text_is_refused_before_anything_is_loaded(
    residency, registry, slots, tmp_path
):
    (tmp_path / CHAT_TEMPLATE).write_bytes(b"\xff\xfe{{")
    registry.folders["home@2"] = tmp_path
    with pytest.raises(InvalidAdapter, match="not UTF-8"):
        served(residency, "home")
    assert slots.keys == []


def test_starting_goes_on_past_a_bad_version(residency, registry, slots):
    registry.broken.add("home@2")
    asyncio.run(residency.restore(()))
    assert slots.keys == ["sums@1"]


def test_the_system_prompt_comes_from_the_lineage(residency):
    served(residency, "home")
    [resident] = residency.residents
    assert resident.system_prompt == f"You are {Path('home@2')}."


def test_versions_stay_within_their_bytes(registry, slots, folders):
    catalogue = Catalogue(registry.list, fresh_s=2)
    slots.capacity = 10
    residency = Residency("tiny", catalogue, registry, slots, folders=folders, max_bytes=250)
    served(residency, "home@1", "home@2", "home@1", "home@3")
    assert slots.keys == ["home@1", "home@3"]


def test_a_version_for_which_no_room_can_be_made_unloads_none(registry, slots, folders):
    catalogue = Catalogue(registry.list, fresh_s=2)
    residency = Residency("tiny", catalogue, registry, slots, folders=folders, max_bytes=150)

    async def ask() -> None:
        await residency.acquire("home@1")
        await residency.acquire("home@2")

    with pytest.raises(RayloraError, match="100 bytes does not fit into 150 bytes"):
        asyncio.run(ask())
    assert slots.keys == ["home@1"]


def test_a_bad_version_unloads_none(residency, slots):
    served(residency, "home@1", "home@2")
    slots.broken.add("home@3")
    with pytest.raises(InvalidAdapter, match="another base"):
        served(residency, "home@3")
    assert slots.keys == ["home@1", "home@2"]
