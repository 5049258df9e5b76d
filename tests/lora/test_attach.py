import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from raylora.config.lora_spec import Init, LoraSpec
from raylora.config.model_spec import ModelSource, ModelSpec, Quantization
from raylora.errors import InvalidConfig
from raylora.lora import manifest
from raylora.lora.adapter_config import read
from raylora.lora.attach import attach, save_adapter
from raylora.lora.base import load_base
from raylora.lora.devices import Device, DeviceKind
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


def test_the_chat_template_goes_with_the_adapter(tiny_model, tmp_path: Path) -> None:
    model = attach(tiny_model, LoraSpec(r=4), seed=0)
    gathered = {name: torch.full_like(t, 0.5) for name, t in trainable(model).items()}
    save_adapter(model, tmp_path / "a", BASE, {}, state=gathered, chat_template="{{ messages }}")
    assert (tmp_path / "a" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert "chat_template.jinja" in manifest.read(tmp_path / "a").files
    assert verify(tmp_path / "a").layers == 14


def test_gathered_masters_are_saved_in_the_numbers_that_the_model_used(
    tiny_model, tmp_path: Path
) -> None:
    model = attach(tiny_model.to(torch.bfloat16), LoraSpec(r=4), seed=0)
    gathered = {name: torch.full(t.shape, 0.3) for name, t in trainable(model).items()}
    save_adapter(model, tmp_path / "a", BASE, {}, state=gathered)
    assert verify(tmp_path / "a").dtype == "BF16"


@pytest.mark.parametrize("init", ["gaussian", "orthogonal"])
def test_other_starts_leave_the_model_as_it_was(tiny_model, init: str) -> None:
    wanted = tiny_model(IDS).logits
    model = attach(tiny_model, LoraSpec(r=4, init_lora_weights=Init(init)), seed=0)
    torch.testing.assert_close(model(input_ids=IDS).logits, wanted, rtol=1e-4, atol=1e-5)


def test_ranks_and_alphas_by_name_the_more_exact_first(tiny_model, tmp_path: Path) -> None:
    spec = LoraSpec(
        r=4,
        lora_alpha=8,
        use_rslora=True,
        rank_pattern={"up_proj": 2, "0.mlp.up_proj": 6},
        alpha_pattern={"q_proj": 3, "mlp.up_proj": 5},
    )
    model = attach(tiny_model, spec, seed=0)
    gathered = {name: torch.full_like(t, 0.5) for name, t in trainable(model).items()}
    save_adapter(model, tmp_path / "a", BASE, {}, state=gathered)
    config = read(tmp_path / "a" / "adapter_config.json")
    for layer, rank, alpha in (
        ("model.layers.0.mlp.up_proj", 6, 5),
        ("model.layers.1.mlp.up_proj", 2, 5),
        ("model.layers.1.self_attn.q_proj", 4, 3),
        ("model.layers.1.self_attn.k_proj", 4, 8),
    ):
        module: Any = model.get_submodule(f"base_model.model.{layer}")
        assert module.r["default"] == config.rank(layer) == rank
        assert module.scaling["default"] == config.scale(layer) == alpha / rank**0.5
    assert verify(tmp_path / "a", base_config=tiny_model.config).r == 6


def test_names_that_fit_nothing_are_all_told(tiny_model) -> None:
    spec = LoraSpec(
        target_modules=("q_proj", "k_proj"),
        rank_pattern={"up_proj": 2},
        alpha_pattern={"q_proj.x": 2},
        modules_to_save=("head",),
    )
    with pytest.raises(InvalidConfig) as caught:
        attach(tiny_model, spec, seed=0)
    problems = {problem.key: str(problem) for problem in caught.value.problems}
    assert set(problems) == {
        "lora.rank_pattern.up_proj",
        "lora.alpha_pattern.q_proj.x",
        "lora.modules_to_save",
    }
    assert "k_proj, q_proj" in problems["lora.rank_pattern.up_proj"]
    assert "embed_tokens, " in problems["lora.modules_to_save"]


def test_a_quantised_layer_cannot_be_trained_in_full(tiny_base: Path) -> None:
    local = LocalModel(tiny_base, "tiny", "r", "tiny")
    spec = ModelSpec(source=ModelSource.PATH, quantization=Quantization.INT8)
    base = load_base(local, spec, Device(DeviceKind.CPU))
    with pytest.raises(InvalidConfig, match=r"lora\.modules_to_save.*down_proj is quantised"):
        attach(base, LoraSpec(modules_to_save=("down_proj",)), seed=0)


def test_layers_trained_in_full_are_no_targets(tiny_model) -> None:
    model = attach(tiny_model, LoraSpec(r=4, modules_to_save=("down_proj",)), seed=0)
    names = trainable(model)
    assert len([name for name in names if "lora_" in name]) == 2 * 12
    assert len([name for name in names if "modules_to_save" in name]) == 2
