"""Every family: an adapter goes on, is saved, found whole, and gives its logits again."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.families import FAMILIES

from raylora.config.lora_spec import Init, LoraSpec
from raylora.config.model_spec import DType, ModelSource, ModelSpec, Quantization
from raylora.lora.attach import attach, save_adapter
from raylora.lora.bank.bank import Bank
from raylora.lora.base import linear_shapes, load_base
from raylora.lora.devices import Device, DeviceKind
from raylora.lora.integrity import verify
from raylora.lora.sources import LocalModel

IDS = torch.randint(3, 259, (2, 20), generator=torch.Generator().manual_seed(0))


def train(model: PeftModel) -> None:
    """Move every trained tensor as training would."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.05


@pytest.mark.parametrize("init", [Init.DEFAULT, Init.PISSA])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_comes_back_as_it_was_trained(family: str, init: Init, tmp_path: Path) -> None:
    base = FAMILIES[family].make_model()
    model = attach(base, LoraSpec(r=4, init_lora_weights=init), seed=0)
    train(model)
    with torch.no_grad():
        wanted = model(input_ids=IDS).logits
    save_adapter(model, tmp_path / "a", LocalModel(tmp_path, "tiny", "r", "tiny"), {})

    fresh = FAMILIES[family].make_model()
    facts = verify(tmp_path / "a", base_config=fresh.config)
    assert facts.layers == len(linear_shapes(fresh))
    bank = Bank(fresh)
    bank.add("a", tmp_path / "a")
    with bank.rows(["a", "a"]), torch.no_grad():
        torch.testing.assert_close(fresh(IDS).logits, wanted, rtol=1e-4, atol=1e-4)
    bank.close()
    with torch.no_grad():
        again = PeftModel.from_pretrained(fresh, tmp_path / "a")(input_ids=IDS).logits
        assert not torch.allclose(FAMILIES[family].make_model()(IDS).logits, wanted, atol=1e-3)
    torch.testing.assert_close(again, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_quantised_but_for_its_head(family: str, tmp_path: Path) -> None:
    plain = FAMILIES[family].make_model()
    plain.save_pretrained(tmp_path)
    spec = ModelSpec(
        source=ModelSource.PATH, dtype=DType.FP32, quantization=Quantization.NF4, double_quant=True
    )
    local = LocalModel(tmp_path, "tiny", "r", "tiny")
    quantised = load_base(local, spec, Device(DeviceKind.CPU))
    assert linear_shapes(quantised) == linear_shapes(plain)
    with torch.no_grad():
        assert 0 < (quantised(IDS).logits - plain(IDS).logits).abs().mean() < 0.2
