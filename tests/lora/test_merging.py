"""DoRA and modules saved in full: whole on disk, refused by the bank, right when merged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.families import FAMILIES

from raylora.config.lora_spec import LoraSpec
from raylora.config.model_spec import DType, ModelSource, ModelSpec, Quantization
from raylora.errors import InvalidAdapter
from raylora.lora import manifest
from raylora.lora.attach import attach, save_adapter
from raylora.lora.bank.bank import Bank
from raylora.lora.base import load_base
from raylora.lora.devices import Device, DeviceKind
from raylora.lora.integrity import verify
from raylora.lora.merging import merge
from raylora.lora.sources import LocalModel

IDS = torch.randint(3, 259, (2, 12), generator=torch.Generator().manual_seed(0))
WEIGHTS = "adapter_model.safetensors"
ALONE: list[dict[str, Any]] = [
    {"use_dora": True},
    {"modules_to_save": ("lm_head", "norm")},
    {"modules_to_save": ("embed_tokens",)},
    {"use_dora": True, "modules_to_save": ("input_layernorm",), "use_rslora": True},
]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


def trained(base: Any, tmp_path: Path, **fields: Any) -> tuple[Path, torch.Tensor]:
    """An adapter on disk, and the logits of the model that it came from."""
    model = attach(base, LoraSpec(r=4, **fields), seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator) * 0.05
            parameter.data += noise.to(parameter.dtype)
    wanted = logits(model.eval())
    save_adapter(model, tmp_path / "a", LocalModel(tmp_path, "t", "r", "t"), {"run_id": "x"})
    return tmp_path / "a", wanted


def changed(directory: Path, **tensors: torch.Tensor | None) -> None:
    """Replace or drop tensors by the end of their names, with hashes that fit."""
    held = load_file(directory / WEIGHTS)
    for end, tensor in tensors.items():
        (key,) = [key for key in held if key.replace(".", "_").endswith(end)]
        held.pop(key)
        if tensor is not None:
            held[key] = tensor
    save_file(held, directory / WEIGHTS, metadata={"format": "pt"})
    manifest.write(directory, {})


@pytest.mark.parametrize("fields", ALONE)
@pytest.mark.parametrize("family", ["llama", "smollm", "phi", "gemma2"])
def test_merged_it_is_what_was_trained(family: str, fields: Any, tmp_path: Path) -> None:
    if family == "phi":
        renamed = {"norm": "final_layernorm"}
        fields = fields | {
            "modules_to_save": tuple(
                renamed.get(name, name) for name in fields.get("modules_to_save", ())
            )
        }
    directory, wanted = trained(FAMILIES[family].make_model(), tmp_path, **fields)
    assert not torch.allclose(logits(FAMILIES[family].make_model()), wanted, atol=1e-2)
    merged, facts = merge(FAMILIES[family].make_model(), directory, base_revision="r")
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-4, atol=1e-4)
    assert facts.alone_because
    assert not any(parameter.requires_grad for parameter in merged.parameters())


@pytest.mark.parametrize("fields", ALONE)
def test_the_bank_says_why_it_takes_none(tiny_model, fields: Any, tmp_path: Path) -> None:
    base = FAMILIES["llama"].make_model()
    directory, _ = trained(base, tmp_path, **fields)
    bank = Bank(FAMILIES["llama"].make_model())
    reason = "use_dora" if "use_dora" in fields else "modules_to_save"
    with pytest.raises(InvalidAdapter, match=rf"cannot share a batch.*{reason}") as caught:
        bank.add("a", directory)
    assert "merge it" in str(caught.value.hint)
    assert bank.keys == ()


@pytest.mark.parametrize("quantization", [Quantization.NF4, Quantization.FP4, Quantization.INT8])
def test_on_a_quantised_base(tiny_base: Path, quantization: Quantization, tmp_path: Path) -> None:
    local = LocalModel(tiny_base, "tiny", "rev-1", "tiny")
    spec = ModelSpec(source=ModelSource.PATH, dtype=DType.FP32, quantization=quantization)
    base = load_base(local, spec, Device(DeviceKind.CPU))
    directory, wanted = trained(base, tmp_path, use_dora=True)
    merged, _ = merge(load_base(local, spec, Device(DeviceKind.CPU)), directory)
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-4, atol=1e-4)


def test_a_plain_adapter_merges_too(tmp_path: Path) -> None:
    directory, wanted = trained(FAMILIES["llama"].make_model(), tmp_path)
    merged, facts = merge(FAMILIES["llama"].make_model(), directory)
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-4, atol=1e-4)
    assert facts.alone_because == ""


def test_missing_and_misshapen_parts_are_seen(tmp_path: Path) -> None:
    base = FAMILIES["llama"].make_model()
    directory, _ = trained(base, tmp_path, use_dora=True, modules_to_save=("norm", "lm_head"))
    config = FAMILIES["llama"].make_config()

    def fault() -> str:
        with pytest.raises(InvalidAdapter) as caught:
            verify(directory, base_config=config, alone=True)
        return str(caught.value)

    verify(directory, base_config=config, alone=True)
    changed(directory, model_norm_weight=torch.ones(32))
    assert "norm.weight has shape [32]" in fault()
    changed(directory, model_norm_weight=None)
    assert "module model.norm has no tensors" in fault()
    changed(directory, lm_head_weight=torch.full((259, 64), torch.nan))
    assert "module model.norm" in fault()
