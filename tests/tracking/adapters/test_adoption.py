"""Adapters that came from elsewhere, into a store that is there, refuses or is away."""

from pathlib import Path

import pytest

from raylora.config.train_spec import TrackingSpec
from raylora.errors import InvalidConfig, NotAuthorised, RayloraError, Unreachable
from raylora.tracking.adapters.adoption import adopt
from raylora.tracking.adapters.lineage import lineage_of
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import get_run, list_runs
from raylora.tracking.spooling import tracked
from raylora.tracking.spooling.courier import courier_of
from raylora.tracking.store import connect

CAME = {"imported": {"source": "/elsewhere"}}
TAGS = {"raylora.imported": "/elsewhere"}


@pytest.fixture
def outputs(uri: str) -> str:
    return str(Path(uri.removeprefix("sqlite:///")).parent)


def fail_with(error: RayloraError, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str, *, patient: bool = False) -> None:
        raise error

    monkeypatch.setattr(tracked, "connect", refuse)


def test_what_was_not_trained_here_has_a_run_that_says_how_it_came(
    uri: str, outputs: str, make_adapter
) -> None:
    adopted = adopt(TrackingSpec(), outputs, "foreign", make_adapter(), params=CAME, tags=TAGS)
    assert (adopted.adapter, adopted.missing) == ("foreign@1", "")
    registry = Registry(uri)
    version = registry.resolve("foreign@1")
    assert version.tags["raylora.imported"] == "/elsewhere" and version.aliases == ()
    run = get_run(uri, adopted.run_id)
    assert (run.summary.status, run.summary.adapter) == ("FINISHED", "foreign@1")
    assert run.params == {"imported.source": "/elsewhere"}
    assert lineage_of(registry, version).metrics == {}


def test_a_store_that_is_away_gets_it_later(
    uri: str, outputs: str, make_adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_with(Unreachable("away"), patch)
        late = adopt(TrackingSpec(), outputs, "foreign", make_adapter(), params=CAME, tags=TAGS)
        assert list_runs(uri, limit=1) == []
    assert late.adapter is None and "away" in late.missing
    assert (late.directory / "adapter_model.safetensors").read_bytes() == b"weights"
    assert courier_of(uri).wait(lambda: _adapters(uri) == ["foreign@1"], 60)


def _adapters(uri: str) -> list[str | None]:
    return [run.adapter for run in list_runs(uri, limit=9)]


def test_what_is_refused_leaves_nothing_or_a_failed_run(
    uri: str, outputs: str, make_adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_with(NotAuthorised("who are you"), patch)
        with pytest.raises(NotAuthorised):
            adopt(TrackingSpec(), outputs, "mine", make_adapter("one"), params={}, tags={})
    assert list(Path(outputs).glob("experiments/adapters/runs/*")) == []
    connect(uri).create_registered_model("others")
    with pytest.raises(InvalidConfig):
        adopt(TrackingSpec(), outputs, "others", make_adapter("two"), params={}, tags={})
    (run,) = list_runs(uri, limit=2)
    assert run.status is RunStatus.FAILED
