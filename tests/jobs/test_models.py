import json
from pathlib import Path

import pytest

from raylora.jobs.models import main
from raylora.lora import gguf


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_empty_cache_lists_nothing(capfd) -> None:
    assert main(["list"]) == 0
    assert json.loads(capfd.readouterr().out) == []


def test_fetch_prints_where_the_model_is(tiny_base: Path, capfd) -> None:
    spec = {"source": "path", "id": str(tiny_base), "name": "tiny"}
    assert main(["fetch", json.dumps(spec)]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["path"] == str(tiny_base)
    assert found["name"] == "tiny"
    assert len(found["revision"]) == 64


def test_a_missing_model_exits_5(tmp_path: Path, capfd) -> None:
    spec = {"source": "path", "id": str(tmp_path / "gone")}
    assert main(["fetch", json.dumps(spec)]) == 5
    assert "gone has no config.json" in capfd.readouterr().err


def test_convert_writes_a_base_for_source_path(
    tiny_base: Path, tmp_path: Path, monkeypatch, capfd
) -> None:
    def convert(path: Path, into: Path) -> None:
        for file in tiny_base.iterdir():
            (into / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(gguf, "convert", convert)
    (tmp_path / "m.gguf").touch()
    assert main(["convert", str(tmp_path / "m.gguf"), str(tmp_path / "base")]) == 0
    assert json.loads(capfd.readouterr().out)["name"] == "base"
    assert main(["convert", str(tmp_path / "m.gguf"), str(tmp_path / "base")]) == 5
    assert "base exists already" in capfd.readouterr().err
    assert main(["convert", str(tmp_path / "none.gguf"), str(tmp_path / "other")]) == 5
    assert "there is no file" in capfd.readouterr().err
