from pathlib import Path

import pytest

from raylora.config.train_spec import TrackingSpec
from raylora.errors import InvalidConfig
from raylora.tracking.location import artifact_root, tracking_uri


def test_null_is_sqlite_in_outputs_wherever_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = tracking_uri(TrackingSpec(), "outputs")
    assert uri == f"sqlite:///{tmp_path}/outputs/mlflow.db"
    assert artifact_root(uri) == tmp_path / "outputs" / "mlartifacts"
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://server:5000/", "http://server:5000"),
        ("https://host/prefix", "https://host/prefix"),
        ("sqlite:////data/runs.db", "sqlite:////data/runs.db"),
        ("postgresql://db/mlflow", "postgresql://db/mlflow"),
    ],
)
def test_a_given_uri_is_kept(uri: str, expected: str) -> None:
    assert tracking_uri(TrackingSpec(uri=uri), "outputs") == expected


def test_a_relative_sqlite_path_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = tracking_uri(TrackingSpec(uri="sqlite:///mine.db"), "outputs")
    assert uri == f"sqlite:///{tmp_path}/mine.db"


@pytest.mark.parametrize("uri", ["mlruns", "file:///data/mlruns", "./mlruns"])
def test_a_folder_is_refused_with_what_to_write(uri: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        tracking_uri(TrackingSpec(uri=uri), "outputs")
    (problem,) = caught.value.problems
    assert problem.key == "tracking.uri"
    assert "sqlite:///" in problem.remedy


def test_remote_outputs_need_a_server() -> None:
    with pytest.raises(InvalidConfig, match="s3://bucket/outputs is not a local folder"):
        tracking_uri(TrackingSpec(), "s3://bucket/outputs")


def test_a_server_keeps_its_own_artifact_root() -> None:
    assert artifact_root("http://server:5000") is None
