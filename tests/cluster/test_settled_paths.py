"""What a spec means here and on another cluster."""

from pathlib import Path
from typing import Any

import pytest

from raylora.cluster.settled_paths import settle
from raylora.config.train_spec import TrainSpec
from raylora.errors import InvalidConfig


def spec_of(**values: Any) -> TrainSpec:
    return TrainSpec.model_validate(values)


def test_here_relative_paths_start_from_the_users_folder(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    spec = spec_of(
        outputs="out/../outputs",
        model={"source": "path", "id": "base"},
        tracking={"uri": "sqlite:///runs.db"},
    )
    settled = settle(spec, is_local=True, base=tmp_path)
    assert settled.outputs == str(tmp_path / "outputs")
    assert settled.model.id == str(tmp_path / "base")
    assert settled.tracking.uri == f"sqlite:///{tmp_path}/runs.db"
    assert settle(settled, is_local=True, base=Path("/elsewhere")) == settled


@pytest.mark.parametrize(
    "uri", ["http://mlflow:5000", "sqlite:////abs/runs.db", "postgresql://host/db", "databricks"]
)
def test_stores_that_are_no_relative_file_stay(uri: str) -> None:
    spec = settle(spec_of(tracking={"uri": uri}), is_local=True, base=Path("/base"))
    assert spec.tracking.uri in (uri, "/base/databricks")


def test_a_model_folder_that_is_not_here_is_said_before_the_job_starts(tmp_path: Path) -> None:
    spec = spec_of(model={"source": "path", "id": "nowhere"})
    with pytest.raises(InvalidConfig, match=r"model\.id.*nowhere"):
        settle(spec, is_local=True, base=tmp_path)
    assert settle(
        spec.model_copy(update={"outputs": "/shared"}), is_local=False, base=tmp_path
    ).model.id == ("nowhere")


def test_another_cluster_needs_outputs_that_outlive_the_job() -> None:
    with pytest.raises(InvalidConfig, match="absolute path"):
        settle(spec_of(outputs="outputs"), is_local=False, base=Path("/base"))
    for shared in ("/shared/outputs", "s3://bucket/outputs"):
        spec = spec_of(outputs=shared)
        assert settle(spec, is_local=False, base=Path("/base")) == spec
