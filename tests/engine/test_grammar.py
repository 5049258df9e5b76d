"""Answers are of the schema that was asked for, and nobody else's answers change."""

import json

import jsonschema
import pytest

from raylora.engine.generator import Engine, generate
from raylora.engine.grammar import ANY_OBJECT, grammar_of
from raylora.engine.request import FinishReason, Request
from raylora.engine.sampling import Sampling
from raylora.errors import InvalidRequest

PROMPT = (5, 9, 33)
LAMP = {
    "type": "object",
    "properties": {
        "room": {"enum": ["hall", "attic"]},
        "level": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["room", "level"],
    "additionalProperties": False,
}


def asked(name: str, schema=None, new: int = 120, **sampling) -> Request:
    grammar = None if schema is None else grammar_of(schema)
    return Request(name, PROMPT, None, Sampling(new, grammar=grammar, **sampling))


@pytest.fixture
def engine(small_llama, tiny_tokenizer, base_only) -> Engine:
    return Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=8)


def test_answers_of_a_model_that_knows_nothing_are_of_the_schema(engine):
    requests = [asked("greedy", LAMP)]
    requests += [asked(f"s{seed}", LAMP, temperature=1.0, seed=seed) for seed in range(5)]
    for found in generate(engine, requests):
        assert found.finish_reason is FinishReason.STOP, found.text
        jsonschema.validate(json.loads(found.text), LAMP)


def test_json_mode_gives_an_object_as_far_as_it_goes(engine):
    [found] = generate(engine, [asked("mode", ANY_OBJECT, 30, temperature=1.0, seed=1)])
    assert found.text.lstrip().startswith("{")


def test_a_grammar_changes_its_own_row_alone(engine, small_llama, tiny_tokenizer, base_only):
    alone = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=8)
    [wanted] = generate(alone, [asked("free", new=40)])
    found, held = generate(engine, [asked("free", new=40), asked("held", LAMP)])
    assert found.token_ids == wanted.token_ids
    assert held.token_ids != wanted.token_ids


def test_a_bias_against_all_that_may_come_leaves_the_answer_of_the_schema(engine):
    bias = tuple((token, -100.0) for token in range(3, 259))
    [found] = generate(engine, [asked("biased", LAMP, logit_bias=bias)])
    jsonschema.validate(json.loads(found.text), LAMP)


@pytest.mark.parametrize("schema", [{"type": "bogus"}, {"$ref": "#/nowhere"}])
def test_what_is_no_schema_is_refused(schema):
    with pytest.raises(InvalidRequest, match="JSON schema"):
        grammar_of(schema)


def test_a_schema_that_is_too_deep_or_too_large_is_refused():
    deep: dict = {"type": "string"}
    for _ in range(300):
        deep = {"type": "object", "properties": {"a": deep}}
    with pytest.raises(InvalidRequest, match="recursion"):
        grammar_of(deep)
    with pytest.raises(InvalidRequest, match="more than 32768"):
        grammar_of({"enum": [f"value {i}" for i in range(5000)]})


def no_tokenizer(*args, **kwargs):
    raise ValueError("Only fast tokenizers are supported")


def test_an_engine_that_is_prepared_makes_nothing_for_the_first_answer(engine, monkeypatch):
    engine.prepare_grammars()
    monkeypatch.setattr("llguidance.hf.from_tokenizer", no_tokenizer)
    [found] = generate(engine, [asked("held", LAMP)])
    jsonschema.validate(json.loads(found.text), LAMP)


def test_a_tokenizer_that_can_hold_no_answer_lets_the_engine_start(engine, monkeypatch):
    monkeypatch.setattr("llguidance.hf.from_tokenizer", no_tokenizer)
    engine.prepare_grammars()
    [found] = generate(engine, [asked("free", new=5)])
    assert found.finish_reason is FinishReason.LENGTH
    with pytest.raises(ValueError, match="fast tokenizers"):
        engine.add(asked("held", LAMP))
