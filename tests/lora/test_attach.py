import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from raylora.config.lora_spec import LoraSpec
from raylora.errors import InvalidConfig
from raylora.lora import manifest
from raylora.lora.attach import attach, save_adapter
from raylora.lora.integrity import verify
from raylora.lora.sources import LocalModel

IDS = torch.tensor([[5, 6, 7, 8]])
BASE = LocalModel(Path("/somewhere"), "org/base", "c0ffee", "base")


def trainable(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_all_linear_layers_but_the_head_are_adapted(tiny_model) -> None:
    model = attach(tiny_model, LoraSpec(r=4), seed=0)
    names = trainable(model)
    assert len(names) == 2 * 14
    assert not any("lm_head" in name for name in names)


def test_adapters_have_the_dtype_of_the_base(tiny_model) -> None:
    model = attach(tiny_model.to(torch.bfloat16), LoraSpec(r=4), seed=0)
    assert {tensor.dtype for tensor in trainable(model).values()} == {torch.bfloat16}


def test_the_seed_alone_decides_and_no_other_stream_moves(tiny_config: LlamaConfig) -> None:
    drawn = []
    for draws in (1, 5):
        base = LlamaForCausalLM(tiny_config)
        torch.manual_seed(draws)
        before = torch.random.get_rng_state()
        drawn.append(trainable(attach(base, LoraSpec(r=4), seed=7)))
        assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    other = trainable(attach(LlamaForCausalLM(tiny_config), LoraSpec(r=4), seed=8))
    assert not all(torch.equal(drawn[0][name], other[name]) for name in other)


def test_named_targets(tiny_model) -> None:
    model = attach(tiny_model, LoraSpec(r=2, target_modules=("q_proj", "v_proj")), seed=0)
    assert {name.split(".")[-4] for name in trainable(model)} == {"q_proj", "v_proj"}


def test_an_unknown_target_names_those_that_exist(tiny_model) -> None:
    spec = LoraSpec(target_modules=("q_proj", "query"))
    with pytest.raises(InvalidConfig, match=r"lora.target_modules.*named query.*down_proj"):
        attach(tiny_model, spec, seed=0)


def test_plain_peft_loads_what_was_saved(tiny_model, tiny_config, tmp_path: Path) -> None:
    model = attach(tiny_model, LoraSpec(r=4, lora_alpha=6.5), seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    wanted = model(input_ids=IDS).logits
    save_adapter(model, tmp_path / "a", BASE, {"run_id": "r1"})

    base = model.unload()
    assert not torch.equal(base(IDS).logits, wanted)
    loaded = PeftModel.from_pretrained(base, tmp_path / "a")
    assert torch.equal(loaded(input_ids=IDS).logits, wanted)


def test_lineage_and_config_say_what_the_adapter_is(tiny_model, tmp_path: Path) -> None:
    model = attach(tiny_model, LoraSpec(r=4), seed=0)
    save_adapter(model, tmp_path / "a", BASE, {"run_id": "r1"})
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "raylora.json",
    ]
    assert manifest.read(tmp_path / "a").lineage == {
        "base": {"id": "org/base", "revision": "c0ffee", "name": "base"},
        "run_id": "r1",
    }
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/base"
    assert config["r"] == 4
    assert "/somewhere" not in (tmp_path / "a" / "raylora.json").read_text()


def test_given_tensors_are_saved_in_place_of_the_models(tiny_model, tmp_path: Path) -> None:
    model = attach(tiny_model, LoraSpec(r=4), seed=0)
    gathered = {name: torch.full_like(t, 0.5) for name, t in trainable(model).items()}
    save_adapter(model, tmp_path / "a", BASE, {}, state=gathered)
    assert verify(tmp_path / "a").layers == 14  # the model's own B is zero and would be refused
