"""Adapters of runs that are not registered, out of a real store."""

import json
from pathlib import Path

import pytest

from raylora.config.train_spec import TrackingSpec
from raylora.errors import InvalidAdapter, NotFound
from raylora.lora import manifest
from raylora.serve.adapters.shelf import RegistryShelf
from raylora.tracking.adapters.registry import ARTIFACT, Registry
from raylora.tracking.location import tracking_uri
from raylora.tracking.run import Run
from raylora.tracking.runs import open_run

RUN_ID = "20260101-000000-abcdef"


@pytest.fixture
def registry(empty_store: Path, tmp_path: Path) -> Registry:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    return Registry(tracking_uri(TrackingSpec(), str(tmp_path)))


@pytest.fixture
def run(registry: Registry) -> Run:
    return open_run(registry.uri, "default", RUN_ID, "x", params={}, tags={})


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    manifest.write(folder, {"step": 3})
    return folder


def test_a_runs_adapter_is_fetched_once_by_either_id(registry, run, adapter, tmp_path):
    run.log_artifacts(adapter, ARTIFACT)
    shelf = RegistryShelf(registry, tmp_path / "cache")
    folder = shelf.fetch(f"run:{RUN_ID}")
    assert manifest.read(folder).lineage == {"step": 3}
    (folder / "adapter_config.json").write_text("{ }")
    assert shelf.fetch(f"run:{RUN_ID}") == folder
    assert manifest.read(shelf.fetch(f"run:{run.mlflow_run_id}")).lineage == {"step": 3}


def test_half_an_adapter_is_refused_and_asked_for_again(registry, run, adapter, tmp_path):
    document = json.loads((adapter / manifest.NAME).read_text())
    missing = {"missing.safetensors": {"size": 1, "sha256": "0" * 64}}
    document["files"] |= missing
    (adapter / manifest.NAME).write_text(json.dumps(document))
    run.log_artifacts(adapter, ARTIFACT)
    shelf = RegistryShelf(registry, tmp_path / "cache")
    with pytest.raises(InvalidAdapter, match="missing.safetensors is missing"):
        shelf.fetch(f"run:{RUN_ID}")
    del document["files"]["missing.safetensors"]
    (adapter / manifest.NAME).write_text(json.dumps(document))
    run.log_artifacts(adapter, ARTIFACT)
    assert shelf.fetch(f"run:{RUN_ID}").is_dir()


def test_a_run_without_an_adapter_and_no_run_at_all(registry, run, tmp_path):
    shelf = RegistryShelf(registry, tmp_path / "cache")
    with pytest.raises(NotFound, match="no adapter"):
        shelf.fetch(f"run:{RUN_ID}")
    with pytest.raises(NotFound, match="20260101-000000-zzzzzz"):
        shelf.fetch("run:20260101-000000-zzzzzz")
