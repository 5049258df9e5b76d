"""Which version a name means, whatever the registry does."""

import asyncio
import threading
import time

import pytest
from tests.serve.adapters.replica import served

from raylora.errors import NotFound, Unreachable
from raylora.serve.adapters import catalogue as catalogue_module
from raylora.serve.adapters.catalogue import Catalogue
from raylora.serve.adapters.residency import Residency


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("tiny", "tiny"),
        ("home", "home@2"),
        ("home@champion", "home@2"),
        ("home@next", "home@3"),
        ("home@1", "home@1"),
        ("sums", "sums@1"),
    ],
)
def test_a_name_is_its_champion_or_else_its_newest_version(residency, model, expected):
    assert served(residency, model) == [expected]


@pytest.mark.parametrize(
    ("model", "near"),
    [("homme", "home"), ("home@7", "home@3"), ("sums@champion", ""), ("a/b", "")],
)
def test_what_is_not_there_names_what_is_near(residency, slots, model, near):
    with pytest.raises(NotFound) as caught:
        served(residency, model)
    assert near in f"{caught.value.message} {caught.value.hint}"
    assert slots.keys == []


def test_unknown_names_do_not_reach_the_registry_each_time(residency, registry):
    for i in range(50):
        with pytest.raises(NotFound):
            served(residency, f"nobody{i}")
    assert registry.reads == 1
    assert registry.fetched == []


def test_only_the_names_of_the_spec_are_served(registry, slots, folders):
    catalogue = Catalogue(registry.list, frozenset({"sums", "run:r-1"}), fresh_s=2)
    residency = Residency("tiny", catalogue, registry, slots, folders=folders)
    assert served(residency, "sums", "run:r-1") == ["sums@1", "run:r-1"]
    for other in ("home", "run:r-2"):
        with pytest.raises(NotFound):
            served(residency, other)


def test_the_adapter_of_a_run_is_served_by_the_runs_id(residency, registry):
    assert served(residency, "run:20260101-000000-abcdef") == ["run:20260101-000000-abcdef"]
    assert registry.fetched == ["run:20260101-000000-abcdef"]


@pytest.mark.parametrize("model", ["../x", "run:../x", "run:", "home@../x", "a\0b", "home@2/../1"])
def test_a_name_that_is_a_path_reaches_nothing(residency, registry, slots, model):
    with pytest.raises(NotFound):
        served(residency, model)
    assert registry.fetched == slots.keys == []


def test_a_slow_registry_delays_a_request_only_so_long(registry, slots, folders, monkeypatch):
    def slow() -> list:
        time.sleep(0.3)
        return registry.list()

    monkeypatch.setattr(catalogue_module, "PATIENCE_S", 0.01)
    catalogue = Catalogue(slow, fresh_s=2)
    residency = Residency("tiny", catalogue, registry, slots, folders=folders)

    async def ask() -> str:
        with pytest.raises(NotFound):
            await residency.acquire("home")
        await asyncio.sleep(0.5)
        return (await residency.acquire("home")).name

    assert asyncio.run(ask()) == "home@2"


def test_starting_waits_for_a_slow_registry(registry, slots, folders, monkeypatch):
    def slow() -> list:
        time.sleep(0.3)
        return registry.list()

    monkeypatch.setattr(catalogue_module, "PATIENCE_S", 0.01)
    catalogue = Catalogue(slow, fresh_s=2)
    residency = Residency("tiny", catalogue, registry, slots, folders=folders)
    asyncio.run(residency.restore(["sums"]))
    assert slots.keys == ["sums@1"]


def test_a_registry_that_hangs_delays_one_request_and_not_each(registry, slots, folders):
    answers = threading.Event()
    answers.set()

    def read() -> list:
        answers.wait(5)
        return registry.list()

    catalogue = Catalogue(read, fresh_s=0.01)
    residency = Residency("tiny", catalogue, registry, slots, folders=folders)

    async def ask() -> float:
        await residency.acquire("home")
        answers.clear()
        await asyncio.sleep(0.05)
        await residency.acquire("home")
        started = time.monotonic()
        for _ in range(20):
            await residency.acquire("home")
        took = time.monotonic() - started
        answers.set()
        return took

    assert asyncio.run(ask()) < 0.5


def test_with_a_registry_that_was_never_reached_no_name_is_said_to_be_unknown(
    registry, slots, folders
):
    def unreachable() -> list:
        raise Unreachable("the registry does not answer")

    catalogue = Catalogue(unreachable, fresh_s=2)
    residency = Residency("tiny", catalogue, registry, slots, folders=folders)
    with pytest.raises(Unreachable):
        served(residency, "home")


def test_a_thousand_names_do_not_slow_a_request_down(registry, slots, folders):
    for number in range(1000):
        registry.put(f"n{number}", 3, champion=2, next=3)
    catalogue = Catalogue(registry.list, fresh_s=60)
    residency = Residency("tiny", catalogue, registry, slots, folders=folders)

    async def ask() -> float:
        (await residency.acquire("n1")).release()
        started = time.perf_counter()
        for _ in range(100):
            (await residency.acquire("n1")).release()
        return (time.perf_counter() - started) / 100

    assert asyncio.run(ask()) < 0.001
    assert catalogue.aliases("n1", 2) == ["champion"]
