import json

import pytest

from raylora.errors import InvalidConfig, NotFound
from raylora.tracking.promotion import promote
from raylora.tracking.registry import Registry


@pytest.fixture
def registry(uri: str, start, make_adapter) -> Registry:
    """home with three versions."""
    registry = Registry(uri)
    for number in range(3):
        files = make_adapter(f"v{number}", weights=bytes([number]))
        registry.register("home", start(run_id=f"run-{number}"), files, tags={})
    return registry


def test_the_first_version_becomes_champion_and_the_second_leaves_it(registry: Registry) -> None:
    first = promote(registry, "home@1", only_if_unset=True)
    assert (first.moved, first.from_version, first.to_version) == (True, None, 1)
    second = promote(registry, "home@2", only_if_unset=True)
    assert (second.moved, second.from_version, second.to_version) == (False, 1, 1)
    assert registry.aliases("home") == {"champion": 1}


def test_moves_an_alias_and_records_the_decision_on_the_version(registry: Registry) -> None:
    promote(registry, "home@1")
    decision = promote(registry, "home@3")
    assert registry.aliases("home") == {"champion": 3}
    record = json.loads(registry.resolve("home@3").tags["raylora.promotion.champion"])
    assert record == vars(decision)
    assert (record["from_version"], record["to_version"]) == (1, 3)
    assert "@" in record["who"]
    assert record["when"].endswith("+00:00")


def test_an_alias_can_be_promoted_to_another(registry: Registry) -> None:
    promote(registry, "home@2", "canary")
    promote(registry, "home@canary")
    assert registry.aliases("home") == {"canary": 2, "champion": 2}


def test_promoting_where_it_points_changes_nothing(registry: Registry) -> None:
    promote(registry, "home@1")
    before = registry.resolve("home@1").tags
    assert not promote(registry, "home@1").moved
    assert registry.resolve("home@1").tags == before


@pytest.mark.parametrize("ref", ["home", "home@v2", "a/b"])
def test_a_promotion_says_which_version(registry: Registry, ref: str) -> None:
    with pytest.raises(InvalidConfig):
        promote(registry, ref)


@pytest.mark.parametrize("alias", ["7", "v7", "latest", "not an alias"])
def test_bad_aliases_are_refused(registry: Registry, alias: str) -> None:
    with pytest.raises(InvalidConfig):
        promote(registry, "home@1", alias)


def test_an_unknown_version_moves_nothing(registry: Registry) -> None:
    promote(registry, "home@1")
    with pytest.raises(NotFound):
        promote(registry, "home@9")
    assert registry.aliases("home") == {"champion": 1}
