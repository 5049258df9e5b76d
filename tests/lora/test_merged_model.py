from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from raylora.config.lora_spec import LoraSpec
from raylora.config.model_spec import DType, ModelSource, ModelSpec, Quantization
from raylora.errors import InvalidAdapter
from raylora.lora import manifest, merged_model
from raylora.lora.attach import attach, save_adapter
from raylora.lora.base import load_base
from raylora.lora.devices import Device, DeviceKind
from raylora.lora.merged_model import write_merged
from raylora.lora.sources import LocalModel

CPU = Device(DeviceKind.CPU)
IDS = torch.randint(3, 259, (2, 12), generator=torch.Generator().manual_seed(0))


def spec(**fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"source": ModelSource.PATH, "dtype": DType.FP32, **fields})


@pytest.fixture
def local(tiny_base: Path) -> LocalModel:
    return LocalModel(tiny_base, "tiny", "rev-1", "tiny")


@pytest.fixture
def adapter(local: LocalModel, tmp_path: Path):
    def make(model: ModelSpec, **fields: Any) -> tuple[Path, torch.Tensor]:
        adapted = attach(load_base(local, model, CPU), LoraSpec(r=4, **fields), seed=0)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
        save_adapter(adapted, tmp_path / "a", local, {}, chat_template="{{ 'own' }}")
        return tmp_path / "a", logits(adapted.eval())

    return make


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


@pytest.mark.parametrize(
    "fields", [{}, {"use_dora": True}, {"modules_to_save": ("norm",), "use_rslora": True}]
)
def test_what_is_written_is_base_and_adapter(local, adapter, tmp_path: Path, fields) -> None:
    directory, wanted = adapter(spec(), **fields)
    found = write_merged(local, spec(), directory, tmp_path / "merged", CPU, "home@7")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(logits(read.eval()), wanted, rtol=1e-4, atol=1e-5)
    assert found.mean_difference <= found.allowed < found.effect / 10
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == "{{ 'own' }}"
    lineage = manifest.read(tmp_path / "merged").lineage
    assert lineage["adapter"]["version"] == "home@7"
    assert lineage["base"]["revision"] == "rev-1"
    assert manifest.find_fault(tmp_path / "merged") is None


def test_a_quantised_base_becomes_a_plain_model(local, adapter, tmp_path: Path) -> None:
    nf4 = spec(quantization=Quantization.NF4)
    directory, wanted = adapter(nf4)
    write_merged(local, nf4, directory, tmp_path / "merged", CPU, "home@7")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(logits(read.eval()), wanted, rtol=1e-3, atol=1e-4)


def test_what_is_not_the_two_together_is_not_left_behind(
    local, adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, _ = adapter(spec())
    reading = merged_model._read

    def read_something_else(staged: Path, *given: Any) -> Any:
        weights = load_file(staged / "model.safetensors")
        key = next(key for key in weights if key.endswith("q_proj.weight"))
        weights[key] = weights[key] + 0.05
        save_file(weights, staged / "model.safetensors", metadata={"format": "pt"})
        return reading(staged, *given)

    monkeypatch.setattr(merged_model, "_read", read_something_else)
    with pytest.raises(InvalidAdapter, match="other logits than base and adapter"):
        write_merged(local, spec(), directory, tmp_path / "merged", CPU, "home@7")
    assert not (tmp_path / "merged").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
