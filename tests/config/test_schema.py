"""JSON Schema: what editors get, and what remedies are made of."""

import jsonschema
import pytest
import yaml

from raylora.config.compose import load
from raylora.config.presets import Kind, presets
from raylora.config.schema import json_schema, keys_of
from raylora.config.train_spec import TrainSpec


@pytest.mark.parametrize("kind", Kind)
def test_the_schema_accepts_every_preset_and_refuses_a_wrong_key(kind: Kind) -> None:
    schema = json_schema(kind.spec_type)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for name in presets(kind):
        data = yaml.safe_load(load(kind, name).to_yaml())
        validator.validate(data)
        assert not validator.is_valid(data | {"nonsense": 1})
        assert not validator.is_valid(data | {"model": {"rank": 1}})
    assert validator.is_valid({"defaults": [f"/{kind}/quickstart"]})


def test_the_schema_carries_the_field_docs() -> None:
    lora = json_schema(TrainSpec)["$defs"]["LoraSpec"]["properties"]
    assert "lora_alpha / r" in lora["lora_alpha"]["description"]


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("lora.r", "an integer from 1 to 256"),
        ("lora.lora_dropout", "a number of at least 0 and less than 1"),
        ("lora.target_modules", "text or a list, each item text"),
        ("training.max_steps", "an integer of at least 1 or null"),
        ("training.lr_scheduler", "one of linear, cosine, constant, wsd"),
        ("tracking.system_metrics", "true or false"),
        ("data.train", "text that is not empty"),
        ("name", "a name of 1 to 64 letters, digits, _ and -, a letter or digit first"),
        ("lora", "a section of keys"),
        ("workers.num_workers", "an integer or a list of an integer and an integer"),
        ("lora.rank_pattern", "a section of names, each with an integer from 1 to 256"),
        ("lora.rank_pattern.mlp.up_proj", "an integer from 1 to 256"),
        ("data.mixture.0.weight", "a number greater than 0 and of at most 100"),
        ("data.mixture.1.columns.prompt", "text that is not empty"),
    ],
)
def test_what_a_key_allows_is_said_in_words(key: str, allowed: str) -> None:
    field = keys_of(TrainSpec).at(key)
    assert field is not None
    assert field.allowed == allowed


@pytest.mark.parametrize(
    "key", ["lora.rank", "lora.r.x", "data.mixture.x", "data.mixture.0.weigth", "data.columns."]
)
def test_what_the_spec_does_not_have_is_nowhere(key: str) -> None:
    assert keys_of(TrainSpec).at(key) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("lora.rank", "lora.r"),
        ("lora.alpha", "lora.lora_alpha"),
        ("learning_rate", "training.learning_rate"),
        ("num_workers", "workers.num_workers"),
        ("model.quantisation", "model.quantization"),
        ("training.batch_size", "training.micro_batch_size"),
        ("modle", "model"),
        ("data.mixture.2.wieght", "data.mixture.2.weight"),
    ],
)
def test_the_key_that_was_meant_is_found(written: str, meant: str) -> None:
    assert meant in keys_of(TrainSpec).nearest(written)


def test_nonsense_is_near_nothing() -> None:
    assert keys_of(TrainSpec).nearest("zzz") == []
