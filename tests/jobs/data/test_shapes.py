"""Each shape: recognised, named, mapped, and refused with a remedy."""

import json

import pytest

from raylora.config.data_spec import DataSpec, Shape, SourceSpec
from raylora.errors import InvalidConfig
from raylora.jobs.data.conversation import Conversation, PlainText
from raylora.jobs.data.records import BadLine
from raylora.jobs.data.shapes import Shaper, recognise

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "hi"}
SYSTEM = {"role": "system", "content": "Be kind."}
PLAIN = (USER, ANSWER)


def shaper(**fields) -> Shaper:
    data = DataSpec.model_validate(fields)
    return Shaper(data.sources[0], data)


def convert(row: dict, **fields) -> Conversation:
    content = shaper(**fields).convert(row)
    assert isinstance(content, Conversation)
    return content


ROWS = {
    "messages": {"messages": [USER, ANSWER], "text": "other"},
    "sharegpt": {
        "conversations": [
            dict(zip(("from", "value"), t, strict=True))
            for t in (("human", "hello"), ("gpt", "hi"))
        ]
    },
    "alpaca": {"instruction": "hello", "input": "", "output": "hi", "text": "other"},
    "prompt_completion": {"prompt": "hello", "completion": "hi", "id": 7},
}


@pytest.mark.parametrize("shape", ROWS)
def test_a_shape_is_recognised_by_its_columns_and_can_be_named(shape):
    assert recognise(ROWS[shape]) is Shape(shape)
    for fields in ({}, {"shape": shape}):
        assert convert(ROWS[shape], **fields).messages == PLAIN


def test_plain_text_is_recognised_last():
    assert shaper().convert({"text": "Once upon a time."}) == PlainText("Once upon a time.")


def test_sharegpt_knows_its_speakers():
    turns = [
        ("system", "Be kind."),
        ("user", "How is Bonn?"),
        ("function_call", '{"name": "weather", "arguments": {"city": "Bonn"}}'),
        ("observation", "sunny"),
        ("chatgpt", "Fine."),
    ]
    row = {"conversations": [{"from": who, "value": what} for who, what in turns]}
    content = convert({**row, "tools": '[{"name": "weather", "parameters": {}}]'})
    assert [m["role"] for m in content.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    function = {"name": "weather", "arguments": {"city": "Bonn"}}
    assert content.messages[2]["tool_calls"] == [{"type": "function", "function": function}]
    assert content.tools[0]["function"]["name"] == "weather"
    with_system = {"conversations": [USER, ANSWER], "system": "Be kind."}
    assert convert(with_system).messages == (SYSTEM, *PLAIN)


def test_alpaca_has_input_history_and_system():
    row = {"instruction": "Add.", "input": "1 2", "output": "3", "system": "Be kind."}
    content = convert({**row, "history": [["hello", "hi"]]})
    assert content.messages == (
        SYSTEM,
        USER,
        ANSWER,
        {"role": "user", "content": "Add.\n\n1 2"},
        {"role": "assistant", "content": "3"},
    )


def test_answers_inside_a_prompt_are_not_learnt():
    row = {"prompt": [USER, ANSWER, USER], "completion": [ANSWER]}
    assert convert(row).weights == (0.0, 0.0, 0.0, 1.0)
    assert convert({"prompt": [SYSTEM, USER], "completion": "hi"}).messages == (SYSTEM, *PLAIN)
    with pytest.raises(BadLine, match="does not begin with the assistant"):
        convert({"prompt": "hello", "completion": [USER, ANSWER]})


def test_turns_have_weights():
    content = convert({"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 2}]})
    assert content.weights == (1.0, 0.0, 1.0, 2.0)
    assert content.messages == PLAIN + PLAIN


def test_what_formats_with_columns_fill_in_is_nothing():
    empty = {"tool_calls": None, "name": None, "weight": None, "reasoning_content": None}
    row = {"messages": [{**USER, **empty}, {**ANSWER, **empty, "tool_calls": []}], "tools": None}
    assert convert(row).messages == PLAIN


def test_content_in_parts_is_joined():
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    assert convert({"messages": [{**USER, "content": parts}, ANSWER]}).messages == PLAIN
    image = [{"type": "image_url", "image_url": {}}]
    with pytest.raises(BadLine, match="a part that is no text: image_url"):
        convert({"messages": [{**USER, "content": image}, ANSWER]})


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"q": "hello", "a": "hi"}, {"prompt": "q", "completion": "a"}),
        ({"dialog": [USER, ANSWER]}, {"messages": "dialog"}),
        (
            {"talk": [{"who": "user", "what": "hello"}, {"who": "assistant", "what": "hi"}]},
            {"messages": "talk", "role": "who", "content": "what"},
        ),
        (
            {"talk": [{"s": "human", "t": "hello"}, {"s": "gpt", "t": "hi"}]},
            {"conversations": "talk", "from": "s", "value": "t"},
        ),
        ({"prompt": "hello", "output": "hi"}, {"instruction": "prompt"}),
    ],
)
def test_columns_may_have_other_names(row, columns):
    assert convert(row, columns=columns).messages == PLAIN


def test_a_column_that_no_shape_has_is_refused():
    with pytest.raises(InvalidConfig, match="'question' is no column of shape auto"):
        shaper(columns={"question": "prompt"})
    with pytest.raises(InvalidConfig, match="'prompt' is no column of shape alpaca"):
        shaper(shape="alpaca", columns={"prompt": "q"})


TEMPLATED = {"shape": "template", "completion_template": "{{ label }}"}


def test_templates_make_a_conversation_of_any_columns():
    content = convert(
        {"q": "why?", "my label": 3},
        prompt_template="{{ q | upper }}{% if label > 2 %}!{% endif %}",
        columns={"label": "my label"},
        **TEMPLATED,
    )
    assert [m["content"] for m in content.messages] == ["WHY?!", "3"]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ missing }}", "data.prompt_template fails: 'missing' is undefined"),
        ("{{ q.__class__.__mro__ }}", "data.prompt_template fails: access to attribute"),
        ("{{ 1 / 0 }}", "data.prompt_template fails: division by zero"),
        ("  ", "what data.prompt_template gives has no content"),
    ],
)
def test_a_template_that_fails_names_itself(template, says):
    with pytest.raises(BadLine, match=says):
        convert({"q": "why?", "label": "x"}, prompt_template=template, **TEMPLATED)


def test_a_template_that_is_none_is_a_mistake_in_the_spec():
    with pytest.raises(InvalidConfig, match=r"data\.prompt_template.*no Jinja template"):
        shaper(prompt_template="{% for", **TEMPLATED)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "a"}, "no known shape has the columns: question"),
        ({}, "no known shape has the columns: none"),
        ({"messages": "hello"}, "column 'messages' is a string"),
        ({"messages": []}, "column 'messages' is an empty list"),
        ({"messages": ["hello"]}, "messages[0] is a string"),
        ({"messages": [{"role": "user"}]}, "messages[0] has the keys: role"),
        ({"messages": [{"content": "a"}]}, "messages[0] has the keys: content"),
        (
            {"messages": [{**USER, "name": "Bob"}, ANSWER]},
            "messages[0] has the keys: role, content, name",
        ),
        (
            {"messages": [USER, {"role": "robot", "content": "hi"}]},
            "messages[1] has the unknown role 'robot'",
        ),
        (
            {"messages": [USER, {"role": ["user"], "content": "hi"}]},
            "messages[1] has the unknown role ['user']",
        ),
        ({"messages": [USER, {**ANSWER, "content": None}]}, "messages[1] has null as its content"),
        ({"messages": [USER, {**ANSWER, "content": " \n"}]}, "messages[1] has no content"),
        ({"messages": [USER, {**ANSWER, "content": "\ud800"}]}, "half of a surrogate pair"),
        ({"messages": [USER, {**ANSWER, "weight": -1}]}, "messages[1] has the weight -1"),
        ({"messages": [USER, {**ANSWER, "weight": "1"}]}, "messages[1] has the weight '1'"),
        ({"messages": [USER]}, "no assistant message"),
        ({"messages": [USER, ANSWER, USER]}, "ends with the user"),
        ({"messages": [ANSWER]}, "begins with the assistant"),
        ({"messages": [USER, SYSTEM, ANSWER]}, "a system message comes late"),
        (
            {"messages": [USER, {"role": "tool", "content": "x"}, ANSWER]},
            "a tool answers the user, who called none",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"name": ""}]}]},
            "messages[1].tool_calls[0] names no function",
        ),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]},
                ]
            },
            "a string that is not JSON",
        ),
        ({"messages": [USER, ANSWER], "tools": "{}"}, "column 'tools' is an object"),
        ({"messages": [USER, ANSWER], "tools": [{}]}, "tools[0] names no function"),
        ({"conversations": [{"from": "ape", "value": "x"}]}, "the unknown role 'ape'"),
        ({"conversations": "x"}, "column 'conversations' is a string"),
        ({"instruction": "a", "output": ""}, "column 'output' has no content"),
        ({"instruction": 3, "output": "b"}, "column 'instruction' is a number"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "column 'history' holds a list"),
        ({"prompt": None, "completion": "b"}, "column 'prompt' is null"),
        ({"prompt": [], "completion": "b"}, "the conversation begins with the assistant"),
        ({"text": None}, "column 'text' is null"),
        ({"text": " "}, "column 'text' has no content"),
    ],
)
def test_a_bad_row_is_refused_with_a_remedy(row, says):
    with pytest.raises(BadLine) as caught:
        convert(row)
    assert says in str(caught.value)
    assert caught.value.hint


def test_a_row_of_another_shape_is_told_from_the_first():
    rows = shaper()
    rows.convert(ROWS["alpaca"])
    with pytest.raises(BadLine, match="a row of shape messages among rows of shape alpaca"):
        rows.convert(ROWS["messages"])
    with pytest.raises(BadLine, match="no column 'instruction'; the columns are: question"):
        rows.convert({"question": "?"})


def test_deep_arguments_do_not_break_the_reader():
    deep = "[" * 100_000
    call = {"name": "f", "arguments": deep}
    with pytest.raises(BadLine, match="a string that is not JSON"):
        convert({"messages": [USER, {"role": "assistant", "tool_calls": [call]}]})
    flat = json.dumps({"a": 1})
    called = {"role": "assistant", "tool_calls": [{**call, "arguments": flat}]}
    function = convert({"messages": [USER, called]}).messages[1]["tool_calls"][0]["function"]
    assert function == {"name": "f", "arguments": {"a": 1}}


def test_sources_of_a_mixture_have_shapes_of_their_own():
    data = DataSpec.model_validate(
        {"shape": "alpaca", "mixture": [{"source": "b.jsonl", "columns": {"text": "body"}}]}
    )
    first, second = (Shaper(source, data) for source in data.sources)
    assert isinstance(first.convert(ROWS["alpaca"]), Conversation)
    assert second.convert({"body": "Once."}) == PlainText("Once.")
    assert isinstance(data.sources[1], SourceSpec)
