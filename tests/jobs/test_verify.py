import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from raylora.config.lora_spec import LoraSpec
from raylora.jobs.verify import main
from raylora.lora.attach import attach, save_adapter
from raylora.lora.sources import LocalModel


@pytest.fixture
def adapter(tiny_config: LlamaConfig, tmp_path: Path) -> Path:
    model = attach(LlamaForCausalLM(tiny_config), LoraSpec(r=4), seed=0)
    state = {name: torch.ones_like(p) for name, p in model.named_parameters() if "lora_" in name}
    base = LocalModel(Path("tiny"), "tiny", "rev-1", "tiny")
    save_adapter(model, tmp_path / "a", base, {"run_id": "r1"}, state=state)
    return tmp_path / "a"


def test_a_good_adapter_prints_its_facts(adapter: Path, tiny_base: Path, capfd) -> None:
    assert main([str(adapter), "--model-config", str(tiny_base)]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["r"], facts["base"], facts["lineage"]["run_id"]) == (4, "tiny", "r1")


def test_a_bad_adapter_exits_5_with_the_reason(adapter: Path, capfd) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    assert main([str(adapter)]) == 5
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "adapter_model.safetensors has 0 bytes" in err
    assert "hint: " in err


def test_an_unreadable_model_config_is_named(adapter: Path, tmp_path: Path, capfd) -> None:
    assert main([str(adapter), "--model-config", str(tmp_path)]) == 5
    assert "--model-config" in capfd.readouterr().err
