"""Adapters from folders."""

import asyncio
from pathlib import Path

import pytest
from tests.serve.adapters.replica import answered

from raylora.errors import InvalidAdapter
from raylora.serve.adapters.loading import MakeRoom


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
