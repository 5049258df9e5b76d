"""The programs behind `raylora adapters import | merge | combine`, with the tiny base."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM

from raylora.config.lora_spec import LoraSpec
from raylora.config.model_spec import DType, ModelSource, ModelSpec
from raylora.jobs import combine, import_adapter, merge
from raylora.lora import manifest
from raylora.lora.attach import attach, save_adapter
from raylora.lora.integrity import verify
from raylora.lora.sources import fetch


@pytest.fixture
def model(tiny_base: Path) -> ModelSpec:
    return ModelSpec(source=ModelSource.PATH, id=str(tiny_base), name="t", dtype=DType.FP32)


@pytest.fixture
def trained(model: ModelSpec, tiny_base: Path, tmp_path: Path) -> Callable[[int], Path]:
    """An adapter that raylora saved."""

    def make(seed: int) -> Path:
        adapted = attach(LlamaForCausalLM.from_pretrained(tiny_base), LoraSpec(r=4), seed)
        state = {name: p + seed * 0.1 for name, p in adapted.named_parameters() if "lora_" in name}
        local = fetch(model, tmp_path / "cache")
        save_adapter(adapted, tmp_path / f"a{seed}", local, {"run_id": "r"}, state=state)
        return tmp_path / f"a{seed}"

    return make


@pytest.fixture
def foreign(tiny_base: Path, tmp_path: Path) -> Path:
    """An adapter that PEFT saved, as others leave it: with a README, without a manifest."""
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    adapted = get_peft_model(LlamaForCausalLM.from_pretrained(tiny_base), config)
    adapted.save_pretrained(str(tmp_path / "foreign"))
    assert (tmp_path / "foreign" / "README.md").exists()
    return tmp_path / "foreign"


def said(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capfd.readouterr().out)


def test_an_adapter_of_peft_is_taken_with_a_manifest(
    foreign: Path, tiny_base: Path, tmp_path: Path, capfd
) -> None:
    into = tmp_path / "into"
    arguments = [str(foreign), str(into), f"--model-config={tiny_base}"]
    assert import_adapter.main(arguments) == 0
    facts = said(capfd)
    assert (facts["r"], facts["layers"]) == (4, 4)
    assert facts["lineage"]["imported"] == {"source": str(foreign)}
    assert facts["lineage"]["base"]["id"] == str(tiny_base)
    assert {path.name for path in into.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "raylora.json",
    }
    assert verify(into).sha256 == facts["sha256"]


def _link(directory: Path) -> None:
    weights = directory / "adapter_model.safetensors"
    weights.rename(directory / "elsewhere")
    weights.symlink_to(directory / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda d: (d / "training_args.bin").write_bytes(b"x"), "pickled weights"),
        (lambda d: (d / "adapter_config.json").write_text('{"r": 1000000}'), "r: "),
        (lambda d: (d / "adapter_model.safetensors").write_bytes(b"\0" * 64), "safetensors"),
        (_link, "not a regular file"),
    ],
)
def test_structural_faults_are_refused_without_a_manifest(
    foreign: Path, tmp_path: Path, capfd, damage, reason: str
) -> None:
    damage(foreign)
    assert import_adapter.main([str(foreign), str(tmp_path / "into")]) == 5
    assert reason in capfd.readouterr().err
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("source", ["nowhere", "./org/name", "/abs/name", "a/b/c"])
def test_a_folder_that_is_not_there_is_no_question_to_the_hub(
    source: str, tmp_path: Path, capfd
) -> None:
    assert import_adapter.main([source, str(tmp_path / "into")]) == 5
    assert f"there is no folder {source}" in capfd.readouterr().err


def test_the_hub_is_asked_for_what_is_no_directory(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    asked: list[Any] = []

    def snapshot(repo_id: str, *, revision: str, local_dir: Path, allow_patterns: list[str]):
        asked.append((repo_id, revision, allow_patterns))
        for name in allow_patterns:
            if (foreign / name).exists():
                (local_dir / name).write_bytes((foreign / name).read_bytes())

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    commit = "a" * 40
    assert import_adapter.main(["org/name", str(tmp_path / "i"), f"--revision={commit}"]) == 0
    assert said(capfd)["lineage"]["imported"] == {"source": "org/name", "revision": commit}
    ((repo_id, revision, patterns),) = asked
    assert (repo_id, revision) == ("org/name", commit)
    assert not any("*" in pattern or pattern.endswith(".bin") for pattern in patterns)


def test_merging_says_how_near_the_result_is(
    model: ModelSpec, trained, tmp_path: Path, capfd
) -> None:
    into = tmp_path / "merged"
    arguments = [model.model_dump_json(), str(trained(1)), str(into), "--version=home@1"]
    assert merge.main(arguments) == 0
    found = said(capfd)
    assert found["mean_difference"] <= found["allowed"] < found["effect"]
    assert (into / "model.safetensors").exists()
    assert merge.main(arguments) == 1
    assert "exists already" in capfd.readouterr().err


def test_combining_writes_an_adapter_with_its_parents(
    model: ModelSpec, trained, tiny_base: Path, tmp_path: Path, capfd
) -> None:
    into = tmp_path / "both"
    arguments = [model.model_dump_json(), str(into), str(trained(1)), str(trained(2))]
    arguments += ["--method=ties", "--weight=0.5", "--weight=0.5", "--density=0.5", "--seed=0"]
    assert combine.main([*arguments, '--lineage={"parents": ["a@1", "b@2"]}']) == 0
    lineage = said(capfd)["lineage"]
    assert lineage["parents"] == ["a@1", "b@2"]
    assert lineage["packages"]["peft"] and lineage["hardware"]["cores"]
    assert manifest.find_fault(into) is None
    base = LlamaForCausalLM.from_pretrained(tiny_base)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        without = base(input_ids=ids).logits.clone()
        loaded = PeftModel.from_pretrained(base, into)
        assert not torch.allclose(loaded(input_ids=ids).logits, without, atol=1e-3)
