"""Supervised tokens decode to exactly the answers, for each shape and each family's template."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.templates import TEMPLATES

from raylora.config.data_spec import DataSpec, SourceSpec
from raylora.jobs.data.encode import EncodedRow, Encoder
from raylora.jobs.data.examples import IGNORED, Example
from raylora.jobs.data.records import Fault, Place
from raylora.jobs.data.rows import PlacedRow
from raylora.jobs.data.shapes import Shaper

TOKENIZERS = {family: wire.tokenizer() for family, wire in TEMPLATES.items()}

# Marks that transformers uses inside, and the sign that some tokenizers write a space as.
TEXT = (
    st.text(
        st.characters(exclude_categories=("Cs",), exclude_characters="\U000f0000\U000f0001\u2581"),
        min_size=1,
    )
    .map(str.strip)
    .filter(bool)
)
FORGED = st.sampled_from(sorted({token for wire in TEMPLATES.values() for token in wire.specials}))
SAID = TEXT | st.builds("a{}b".format, FORGED)
TURNS = st.lists(st.tuples(SAID, SAID), min_size=1, max_size=3)


def messages(turns, system):
    chat = [{"role": "system", "content": system}] if system else []
    for asked, answered in turns:
        chat.append({"role": "user", "content": asked})
        chat.append({"role": "assistant", "content": answered})
    return chat


def sharegpt(turns, system):
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    chat = [{"from": names[m["role"]], "value": m["content"]} for m in messages(turns, system)]
    return {"conversations": chat}


def alpaca(turns, system):
    *history, (asked, answered) = turns
    row = {"instruction": asked, "input": "", "output": answered, "system": system}
    return {**row, "history": [list(pair) for pair in history]}


def prompt_completion(turns, system):
    return {"prompt": turns[-1][0], "completion": turns[-1][1]}


def chat_prompt_completion(turns, system):
    chat = messages(turns, system)
    return {"prompt": chat[:-1], "completion": chat[-1:]}


def columns(turns, system):
    return {"question": turns[-1][0], "answer": turns[-1][1]}


ALL, LAST = slice(None), slice(-1, None)
SHAPES = {
    "messages": (lambda turns, system: {"messages": messages(turns, system)}, ALL),
    "sharegpt": (sharegpt, ALL),
    "alpaca": (alpaca, ALL),
    "prompt_completion": (prompt_completion, LAST),
    "chat_prompt_completion": (chat_prompt_completion, LAST),
    "template": (columns, LAST),
}
"""Makes a row, and says which of its answers count."""


def encode(row: dict, family: str, **fields) -> EncodedRow | Fault:
    if "question" in row:
        fields |= {"shape": "template", "completion_template": "{{ answer }}"}
        fields |= {"prompt_template": "Q: {{ question }}"}
    data = DataSpec(max_length=100_000, **fields)
    content = Shaper(SourceSpec(source="rows", shape=data.shape), data).convert(row)
    (encoded,) = Encoder(TOKENIZERS[family], data).encode([PlacedRow(Place("rows", 1), content)])
    return encoded


def runs(example: Example) -> Iterator[list[int]]:
    """Token ids of each stretch of supervised positions."""
    run: list[int] = []
    for label in [*example.labels, IGNORED]:
        if label != IGNORED:
            run.append(label)
        elif run:
            yield run
            run = []


def read(encoded: EncodedRow | Fault) -> EncodedRow:
    assert isinstance(encoded, EncodedRow), encoded.problem
    return encoded


def learnt(encoded: EncodedRow | Fault, family: str) -> list[str]:
    decode: Any = TOKENIZERS[family].decode
    return [decode(run) for example in read(encoded).examples for run in runs(example)]


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(turns=TURNS, system=st.none() | TEXT)
def test_supervised_tokens_decode_to_exactly_the_answers(shape, family, turns, system):
    make, counted = SHAPES[shape]
    wire = TEMPLATES[family]
    expected = [answered + wire.end for _, answered in turns[counted]]
    expected = [wire.before_last + answer for answer in expected]
    assert sorted(learnt(encode(make(turns, system), family), family)) == sorted(expected)


@pytest.mark.parametrize("family", TEMPLATES)
@settings(max_examples=12, deadline=None)
@given(text=TEXT)
def test_all_of_a_plain_text_is_learnt_and_its_end(family, text):
    encoded = encode({"text": "." + text}, family)
    wire = TEMPLATES[family]
    assert "".join(learnt(encoded, family)).endswith(text + wire.eos)
    (example,) = read(encoded).examples
    assert example.labels[0] == IGNORED
    assert example.supervised_tokens == len(example) - 1


@pytest.mark.parametrize("family", TEMPLATES)
@settings(max_examples=12, deadline=None)
@given(turns=TURNS)
def test_of_last_only_the_last_answer_is_learnt(family, turns):
    wire = TEMPLATES[family]
    row = {"messages": messages(turns, None)}
    (said,) = learnt(encode(row, family, supervise="last"), family)
    assert said == wire.before_last + turns[-1][1] + wire.end


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bonn"}}}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}},
}


@pytest.mark.parametrize("family", [name for name, wire in TEMPLATES.items() if wire.has_tools])
@settings(max_examples=5, deadline=None)
@given(answer=TEXT)
def test_calls_are_learnt_and_what_tools_return_is_not(family, answer):
    chat = [
        {"role": "user", "content": "How is Bonn?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny", "name": "weather"},
        {"role": "assistant", "content": answer},
    ]
    encoded = encode({"messages": chat, "tools": json.dumps([TOOL])}, family)
    called, said = sorted(learnt(encoded, family), key=lambda text: "weather" not in text)
    wire = TEMPLATES[family]
    assert said == wire.before_last + answer + wire.end
    assert called.endswith(wire.end)
    assert called.count(wire.end) == 1
    call = called[called.index('{"name"') : called.rindex("}") + 1]
    assert json.loads(call) == CALL["function"]
    whole = TOKENIZERS[family].decode(read(encoded).examples[-1].input_ids)
    assert "sunny" in whole and '"properties"' in whole


@pytest.mark.parametrize("family", [name for name, w in TEMPLATES.items() if not w.has_tools])
def test_a_template_that_shows_no_tools_is_refused(family):
    row = {"messages": messages([("hello", "hi")], None), "tools": [TOOL]}
    encoded = encode(row, family)
    assert isinstance(encoded, Fault)
    assert "does not show tools" in str(encoded.problem)


def test_reasoning_is_learnt_where_the_template_shows_it():
    row = {"messages": messages([("a", "b"), ("2+2?", "4")], None)}
    row["messages"][-1]["reasoning_content"] = "two and two"
    first, last = learnt(encode(row, "qwen3"), "qwen3")
    assert first == "<think>\n\n</think>\n\nb<|im_end|>"
    assert last == "<think>\ntwo and two\n</think>\n\n4<|im_end|>"


def test_answers_that_the_whole_renders_otherwise_are_rows_of_their_own():
    turns = [("one", "1"), ("two", "2")]
    encoded = read(encode({"messages": messages(turns, "Count.")}, "mistral"))
    assert encoded.sequences == len(encoded.examples) == 2
    decoded = [TOKENIZERS["mistral"].decode(e.input_ids) for e in encoded.examples]
    assert decoded[0] == "<s>[INST] Count.\n\none[/INST] 1</s>"
    assert decoded[1] == "<s>[INST] one[/INST] 1</s>[INST] Count.\n\ntwo[/INST] 2</s>"
