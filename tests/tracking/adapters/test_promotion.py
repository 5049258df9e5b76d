import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest

from raylora.config.gate_spec import GateSpec
from raylora.errors import InvalidConfig, NotFound, PromotionConflict, PromotionRefused
from raylora.tracking.adapters import promotion, row_scores
from raylora.tracking.adapters.decisions import Kind
from raylora.tracking.adapters.promotion import GATE_TAG, delete, history, promote, rollback
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.store import connect

METRIC = "heldout_exact_match"


@pytest.fixture
def registry(uri: str, start, make_adapter) -> Registry:
    """home with three versions."""
    registry = Registry(uri)
    for number in range(3):
        files = make_adapter(f"v{number}", weights=bytes([number]))
        registry.register("home", start(run_id=f"run-{number}"), files, tags={})
    return registry


@pytest.fixture
def register(uri: str, start, make_adapter, tmp_path: Path) -> Callable[..., str]:
    """Registers a version whose run has scores of rows; gives its reference."""

    def registering(number: int, scores: list[float], gate: GateSpec | None = None) -> str:
        run = start(run_id=f"scored-{number}")
        run.log_metrics({METRIC: sum(scores) / len(scores)})
        folder = tmp_path / f"evaluation-{number}"
        folder.mkdir()
        rows = row_scores.collect((f"row-{i}", {METRIC: s}) for i, s in enumerate(scores))
        row_scores.write(folder / Path(row_scores.FILE).name, rows)
        run.log_artifacts(folder, str(Path(row_scores.FILE).parent))
        run.flush()
        files = make_adapter(f"scored-{number}", weights=bytes([number, 1]))
        tags = {GATE_TAG: (gate or GateSpec()).model_dump_json()}
        return str(Registry(uri).register("scored", run, files, tags=tags))

    return registering


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
    assert record == json.loads(json.dumps(asdict(decision)))
    assert [check["outcome"] for check in record["checks"]] == ["passed", "not compared"]
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


def test_a_version_that_is_worse_by_row_is_held_back_and_that_is_recorded(
    registry: Registry, register
) -> None:
    promote(registry, register(1, [1.0] * 40))
    worse = register(2, [1.0] * 30 + [0.0] * 10)
    with pytest.raises(PromotionRefused) as caught:
        promote(registry, worse)
    assert f"{METRIC} not below scored@1: failed" in caught.value.message
    assert "--reason" in str(caught.value.hint)
    assert registry.aliases("scored") == {"champion": 1}
    refusal = json.loads(registry.resolve(worse).tags["raylora.refusal.champion"])
    assert (refusal["moved"], refusal["from_version"]) == (False, 1)
    assert [decision.to_version for decision in history(registry, "scored")] == [1]
    ledger = registry.ledger("scored").mlflow_run_id
    kept = connect(registry.uri).list_artifacts(ledger, "decisions")
    assert any("refused" in item.path for item in kept)

    forced = promote(registry, worse, force=True, reason="the old one costs too much")
    assert forced.forced and forced.reason == "the old one costs too much"
    assert registry.aliases("scored") == {"champion": 2}
    assert history(registry, "scored")[-1].reason == forced.reason
    (file,) = connect(registry.uri).list_artifacts(ledger, "decisions/champion")[1:]
    assert forced.id in file.path


def test_as_good_is_good_enough(registry: Registry, register) -> None:
    promote(registry, register(1, [1.0] * 20 + [0.0] * 20))
    equal = promote(registry, register(2, [0.0] + [1.0] * 20 + [0.0] * 19))
    assert equal.moved and not equal.forced
    (check,) = [c for c in equal.checks if c.check.startswith(METRIC)]
    assert "40 rows" in check.detail


def test_thresholds_hold_for_the_first_version_too(registry: Registry, register) -> None:
    gate = GateSpec(at_least={METRIC: 0.9, "heldout_json_valid": 0.9})
    first = register(1, [1.0, 0.0], gate)
    with pytest.raises(PromotionRefused) as caught:
        promote(registry, first, only_if_unset=True)
    assert f"{METRIC} >= 0.9: failed, found 0.5" in caught.value.message
    assert "heldout_json_valid >= 0.9: missing, its run has no" in caught.value.message
    assert registry.aliases("scored") == {}


def test_changed_files_are_never_promoted(registry: Registry) -> None:
    source = Path(registry.resolve("home@1").source)
    (source / "adapter_model.safetensors").write_bytes(b"tampered")
    with pytest.raises(PromotionRefused, match="integrity: failed.*registered with other files"):
        promote(registry, "home@1")
    assert registry.aliases("home") == {}


def test_rollback_goes_one_step_back_each_time(registry: Registry) -> None:
    for number in (1, 2, 3):
        promote(registry, f"home@{number}")
    first = rollback(registry, "home", reason="answers in French")
    assert (first.kind, first.from_version, first.to_version) == (Kind.ROLLBACK, 3, 2)
    assert first.reason == "answers in French"
    assert rollback(registry, "home").to_version == 1
    assert registry.aliases("home") == {"champion": 1}
    with pytest.raises(NotFound, match="no earlier version"):
        rollback(registry, "home")
    promote(registry, "home@3")
    assert rollback(registry, "home").to_version == 1
    record = json.loads(registry.resolve("home@1").tags["raylora.promotion.champion"])
    assert record["kind"] == "rollback"
    chain = history(registry, "home")
    assert all(a.to_version == b.from_version for a, b in pairwise(chain))


def test_each_alias_has_a_chain_of_its_own(registry: Registry) -> None:
    promote(registry, "home@1")
    promote(registry, "home@2", "canary")
    promote(registry, "home@3", "canary")
    assert rollback(registry, "home", "canary").to_version == 2
    assert registry.aliases("home") == {"canary": 2, "champion": 1}
    with pytest.raises(NotFound):
        rollback(registry, "home")


def test_an_alias_set_by_hand_is_where_its_chain_begins(registry: Registry) -> None:
    connect(registry.uri).set_registered_model_alias("home", "champion", "2")
    decision = promote(registry, "home@3")
    assert decision.from_version == 2
    assert rollback(registry, "home").to_version == 2


def test_a_name_from_before_there_were_ledgers_is_given_one(registry: Registry) -> None:
    client = connect(registry.uri)
    client.delete_registered_model_tag("home", "raylora.ledger")
    client.set_registered_model_alias("home", "champion", "1")
    assert history(registry, "home") == []
    assert promote(registry, "home@2").from_version == 1
    assert rollback(registry, "home").to_version == 1


def test_a_version_with_an_alias_is_deleted_by_force_only(registry: Registry) -> None:
    for number in (1, 2):
        promote(registry, f"home@{number}")
    with pytest.raises(InvalidConfig, match="home@2 is champion"):
        delete(registry, "home@2")
    assert str(delete(registry, "home@2", force=True, reason="leaks")) == "home@2"
    assert registry.aliases("home") == {}
    assert registry.numbers("home") == [1, 3]
    with pytest.raises(NotFound, match="home@2"):
        registry.resolve("home@2")
    assert history(registry, "home")[-1].to_version is None
    assert rollback(registry, "home").to_version == 1
    delete(registry, "home@3")
    delete(registry, "home@1", force=True, reason="all of it")
    assert registry.numbers("home") == []
    with pytest.raises(NotFound, match="no version of 'home'"):
        registry.resolve("home")


def test_the_chain_says_who_has_an_alias_and_may_not_be_deleted(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, "home@1")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Registry, "point", killed)
        promote(registry, "home@2")
    assert registry.aliases("home") == {"champion": 1}
    with pytest.raises(InvalidConfig, match="home@2 is champion"):
        delete(registry, "home@2")
    delete(registry, "home@1")
    assert registry.resolve("home").version == 3  # nothing has the alias in MLflow now
    assert not promote(registry, "home@2").moved
    assert registry.aliases("home") == {"champion": 2}


def test_a_rollback_of_an_alias_that_is_not_there_names_the_nearest(registry: Registry) -> None:
    promote(registry, "home@1")
    with pytest.raises(NotFound) as caught:
        rollback(registry, "home", "champoin")
    assert "home@champion" in str(caught.value.hint)


def test_a_rollback_passes_over_what_is_gone(registry: Registry) -> None:
    for number in (1, 2, 3):
        promote(registry, f"home@{number}")
    delete(registry, "home@2")
    assert rollback(registry, "home").to_version == 1


def test_who_comes_second_changes_nothing_and_is_told(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, "home@1")

    def slow(*_: object) -> list[object]:
        monkeypatch.undo()
        promote(registry, "home@3")  # another one, while the gate is being asked
        return []

    monkeypatch.setattr(promotion, "_judged", slow)
    with pytest.raises(PromotionConflict, match="to version 3"):
        promote(registry, "home@2")
    assert registry.aliases("home") == {"champion": 3}
    assert [d.to_version for d in history(registry, "home")] == [1, 3]


def test_an_alias_that_fell_behind_its_chain_is_moved_on(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, "home@1")
    monkeypatch.setattr(Registry, "point", killed)
    with pytest.raises(KeyboardInterrupt):
        promote(registry, "home@2")
    monkeypatch.undo()
    assert registry.aliases("home") == {"champion": 1}
    assert not promote(registry, "home@2").moved  # it is the chain's last word already
    assert registry.aliases("home") == {"champion": 2}


def killed(*_: object) -> None:
    raise KeyboardInterrupt


CALLS = """
import json, sys
from raylora.errors import NotFound, PromotionConflict
from raylora.tracking.adapters.promotion import promote, rollback
from raylora.tracking.adapters.registry import Registry

registry, ended = Registry(sys.argv[1]), []
for turn in range(8):
    which = (int(sys.argv[2]) + turn) % 4
    try:
        decision = promote(registry, f"home@{which}") if which else rollback(registry, "home")
        ended.append("moved" if decision.moved else "stayed")
    except PromotionConflict:
        ended.append("conflict")
    except NotFound:
        ended.append("none")
print(json.dumps(ended))
"""


def test_promotions_and_rollbacks_of_many_processes_form_one_chain(registry: Registry) -> None:
    commands = [[sys.executable, "-P", "-c", CALLS, registry.uri, str(n)] for n in range(3)]
    callers = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    ended = Counter(word for caller in callers for word in json.loads(caller.communicate()[0]))
    chain = history(registry, "home")
    assert [decision.number for decision in chain] == list(range(1, len(chain) + 1))
    assert chain[0].from_version is None
    assert all(a.to_version == b.from_version for a, b in pairwise(chain))
    assert registry.aliases("home") == {"champion": chain[-1].to_version}
    assert ended.total() == 24 and ended.keys() <= {"moved", "stayed", "conflict", "none"}
    assert ended["moved"] == len(chain)
