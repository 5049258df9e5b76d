"""The table of rules: each is broken by what it says, names its keys, and is in the docs."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from raylora.config.compatibility import RULES, broken
from raylora.config.compatibility_page import page
from raylora.config.compose import load_train
from raylora.config.lora_spec import LoraSpec
from raylora.config.presets import Kind, presets
from raylora.config.schema import keys_of
from raylora.config.train_spec import TrainSpec
from raylora.errors import InvalidConfig

VALIDATING = ["training.validation_steps=25"]
SPLITTING = ["workers.zero_stage=3", "model.quantization=none"]
BREAKS: dict[str, list[str]] = {
    "held-out rows of another task": ["data.train=rows.jsonl"],
    "rows longer than the context": ["data.max_length=4096"],
    "packs shorter than rows": ["data.packing=best_fit", "data.pack_length=64"],
    "pack length without packing": ["data.pack_length=1024"],
    "batch smaller than the workers": ["training.global_batch_size=1"],
    "streaming without an end": ["data.ingest=streaming"],
    "streaming cannot look ahead": [
        "data.ingest=streaming",
        "training.max_steps=9",
        "data.order=length_grouped",
    ],
    "streaming cannot hold out": [
        "data.ingest=streaming",
        "training.max_steps=9",
        "data.validation=null",
        "data.validation_ratio=0.1",
    ],
    "answers to plain text": [
        *VALIDATING,
        "training.validation_answers=8",
        "data.shape=text",
    ],
    "double quantisation of nothing": ["model.double_quant=true", "model.quantization=int8"],
    "decomposition of a quantised base": ["lora.init_lora_weights=pissa"],
    "LoftQ without 4 bits": ["lora.init_lora_weights=loftq", "model.quantization=int8"],
    "twice a large rank": [
        "lora.init_lora_weights=olora",
        "model.quantization=none",
        "lora.rank_pattern.q_proj=129",
    ],
    "orthogonal start of odd rank": ["lora.init_lora_weights=orthogonal", "lora.r=5"],
    "iterations of another start": ["lora.pissa_niter=4"],
    "DoRA starts plain": ["lora.use_dora=true", "lora.init_lora_weights=loftq"],
    "adapted and in full": [
        "lora.target_modules=[q_proj, up_proj]",
        "lora.modules_to_save=[up_proj]",
    ],
    "ZeRO 3 over quantised weights": ["workers.zero_stage=3"],
    "ZeRO 3 with DoRA": [*SPLITTING, "lora.use_dora=true"],
    "ZeRO 3 and answers while training": [
        *SPLITTING,
        *VALIDATING,
        "training.validation_answers=8",
    ],
    "offload of nothing": ["workers.offload=true", "workers.zero_stage=0"],
    "sharding without DeepSpeed": ["workers.backend=torch", "workers.offload=true"],
    "8-bit and paged optimizers under DeepSpeed": ["training.optimizer=adamw_8bit"],
    "paged optimizers without a GPU": [
        "training.optimizer=paged_adamw",
        "workers.zero_stage=0",
    ],
    "workers that share a GPU": ["workers.gpus_per_worker=0.5"],
    "warm-up into decay": [
        "training.lr_scheduler=wsd",
        "training.warmup_ratio=0.3",
        "training.decay_ratio=0.8",
    ],
    "validation between checkpoints": ["training.validation_steps=30"],
    "validation without held-out rows": [*VALIDATING, "data.validation=null"],
    "early stopping without validation": ["training.early_stopping_patience=2"],
    "answers without validation": ["training.validation_answers=8"],
    "stopping at spikes that nobody watches": ["training.on_spike=stop"],
}
TOGETHER: list[list[str]] = [
    ["workers.num_workers=1", "training.optimizer=adamw_8bit"],
    ["workers.num_workers=[1,4]"],
    [*SPLITTING, "lora.init_lora_weights=pissa", "workers.offload=true"],
    ["lora.use_dora=true", "lora.use_rslora=true", "lora.loraplus_lr_ratio=16"],
    ["lora.init_lora_weights=loftq", "model.double_quant=true", "workers.num_workers=2"],
    ["model.quantization=int8", "lora.modules_to_save=[lm_head]"],
    ["workers.gpus_per_worker=0.5", "workers.num_workers=1"],
    [*VALIDATING, "training.validation_answers=8", "training.early_stopping_patience=2"],
    ["data.packing=best_fit", "data.pack_length=1024", "data.order=length_grouped"],
]


@pytest.mark.parametrize("name", BREAKS)
def test_each_rule_is_broken_by_what_it_says_and_by_nothing_else(name: str) -> None:
    (rule,) = [rule for rule in RULES if rule.name == name]
    with pytest.raises(InvalidConfig) as caught:
        load_train("quickstart", BREAKS[name])
    (problem,) = caught.value.problems
    assert problem.key == rule.keys[0]
    assert problem.message.startswith(rule.reason)
    assert f"{problem.key}=" in problem.message.removeprefix(rule.reason)
    assert problem.remedy.lower() == f"{rule.remedy}.".lower()


def test_every_rule_is_tried_and_names_keys_that_exist() -> None:
    assert list(BREAKS) == [rule.name for rule in RULES]
    known = keys_of(TrainSpec).fields
    for rule in RULES:
        assert rule.keys
        assert set(rule.keys) <= known.keys(), rule.name


@pytest.mark.parametrize("overrides", TOGETHER, ids=" ".join)
def test_what_goes_together_is_taken(overrides: list[str]) -> None:
    assert broken(load_train("quickstart", overrides).spec) == []


def test_every_preset_keeps_the_rules() -> None:
    assert not any(broken(load_train(name).spec) for name in presets(Kind.TRAIN))


@pytest.mark.parametrize(
    "fields", [{"rank_pattern": {"q_proj": 0}}, {"alpha_pattern": {"q_proj": -1}}, {"r": 257}]
)
def test_ranks_and_alphas_have_bounds_in_patterns_too(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LoraSpec.model_validate(fields)


def test_the_page_in_the_docs_is_this_table() -> None:
    """Else: python -m raylora.config.compatibility_page > docs/compatibility.md."""
    docs = Path(__file__).parents[2] / "docs" / "compatibility.md"
    assert docs.read_text("utf-8") == page()
