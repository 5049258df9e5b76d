"""`raylora doctor`: broken only where something essential is."""

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raylora.cli import doctor
from raylora.cli.main import cli
from raylora.cluster import head_state
from raylora.cluster.authentication import write_token


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path / "cache"))


def examined(*words: str, exit_code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["doctor", "--output", "json", *words])
    assert result.exit_code == exit_code, result.output
    return {check["name"]: check for check in json.loads(result.stdout)}


def test_a_whole_machine_is_fine() -> None:
    checks = examined()
    assert {check["verdict"] for check in checks.values()} <= {"ok", "note"}
    for name in ("python", "ray", "cores", "memory", "disk", "C++ compiler", "cluster", "home"):
        assert checks[name]["found"]
    assert "torch" in checks["extra train"]["found"]
    assert "next" in CliRunner().invoke(cli, ["doctor"]).stderr


def test_an_extra_that_is_missing_is_a_note_and_the_base_is_essential(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = doctor.version

    def version(name: str) -> str:
        if name in missing:
            raise PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(doctor, "version", version)
    missing = {"torch"}
    checks = examined()
    assert checks["extra train"]["verdict"] == "note"
    assert "pip install 'raylora[train]'" in checks["extra train"]["remedy"]
    missing = {"ray"}
    assert examined(exit_code=1)["ray"]["verdict"] == "broken"


def test_a_token_that_others_can_read_is_broken() -> None:
    token = head_state.places().token
    write_token(token)
    assert examined()["token file"]["verdict"] == "ok"
    token.chmod(0o644)
    assert "0644" in examined(exit_code=1)["token file"]["found"]


def test_a_cluster_that_does_not_answer_is_broken() -> None:
    checks = examined("--address", "http://127.0.0.1:1", exit_code=1)
    assert checks["cluster"]["verdict"] == "broken"


def test_cached_models_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert "tiny" in examined()["model cache"]["found"]
