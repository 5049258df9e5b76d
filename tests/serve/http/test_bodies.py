"""Which bodies are taken, and what the others hear."""

import json
from typing import Any

import pytest
from tests.serve.http.asking import HELLO, chat, events_of, schema_of

from raylora.serve.http.body_limit import MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["ab"]),
        ([67, 68], ["ab"]),
        (["ab", "cd"], ["ab", "cd"]),
        ([[67], [68, 69]], ["a", "bc"]),
    ],
)
def test_completions_take_text_and_tokens_one_and_many(call, prompt, texts):
    body = call("/v1/completions", {"model": "tiny", "prompt": prompt}).json()
    assert body["object"] == "text_completion"
    assert [c["text"] for c in body["choices"]] == [f"[base] {text}" for text in texts]
    assert [c["index"] for c in body["choices"]] == list(range(len(texts)))


def test_completions_stream_each_prompt_by_its_index(call):
    body = {"model": "tiny", "prompt": ["ab", "cd"], "stream": True}
    *chunks, done = events_of(call("/v1/completions", body))
    assert done == "[DONE]"
    texts = {0: "", 1: ""}
    for chunk in chunks:
        [choice] = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == {0: "[base] ab", 1: "[base] cd"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 200}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 3}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 1e-40}, "repetition_penalty"),  # 1 / it is no float32
        ({"logit_bias": {"5000": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a.[key]"),
        ({"tools": [{"type": "function"}]}, "tools"),  # the template shows none
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.json_schema"),
        ({"response_format": schema_of({"type": "bogus"})}, "response_format"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop.0"),
        ({"stream": "maybe"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"frobnicate": 1}, "frobnicate"),
        ({"model": 7}, "model"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_field(call, engine, fields, param):
    answer = chat(call, **fields)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert engine.requests == []


def test_fields_that_change_nothing_are_accepted(call):
    neutral: dict[str, Any] = {
        "n": 1, "logprobs": False, "tools": [], "tool_choice": "none", "presence_penalty": 0.0,
        "frequency_penalty": 0, "user": "me", "metadata": {"a": "b"}, "store": False,
        "logit_bias": None, "response_format": {"type": "text"}, "stop": None, "seed": None,
        "parallel_tool_calls": True,
    }  # fmt: skip
    assert chat(call, **neutral).status_code == 200


def test_content_parts_are_joined_and_other_kinds_refused(call):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    message: dict[str, Any] = {"role": "developer", "content": parts}
    good = call("/v1/chat/completions", {"model": "tiny", "messages": [message, *HELLO]})
    assert "<|system|>ab\n" in good.json()["choices"][0]["message"]["content"]
    message["content"] = [{"type": "image_url", "image_url": {"url": "x"}}]
    bad = call("/v1/chat/completions", {"model": "tiny", "messages": [message]})
    assert bad.status_code == 400


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_body_that_is_no_request_is_400_in_openais_shape(call, content):
    headers = {"content-type": "application/json"}
    answer = call("/v1/chat/completions", content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_too_long_a_prompt_is_400_with_the_numbers(call):
    answer = call("/v1/completions", {"model": "tiny", "prompt": "x" * 1200})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert "1200" in error["message"]
    assert "1000" in error["message"]


@pytest.mark.parametrize("prompt", ["", [], [5000], [-1]])
def test_prompts_that_are_no_prompts_are_400(call, prompt):
    answer = call("/v1/completions", {"model": "tiny", "prompt": prompt})
    assert answer.status_code == 400
    assert "error" in answer.json()


def test_a_large_body_is_413(call):
    big = b'{"model": "' + b"x" * MAX_BODY_BYTES + b'"}'
    for content in (big, (big[i : i + 1_000_000] for i in range(0, len(big), 1_000_000))):
        if not isinstance(content, bytes):
            content = aiter_of(list(content))
        answer = call(
            "/v1/chat/completions",
            content=content,
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"


async def aiter_of(items):
    for item in items:
        yield item


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("application/problem+json", 200),
        ("text/plain", 400),  # what a page of another origin may send without asking
        ("application/x-www-form-urlencoded", 400),
        ("", 400),
    ],
)
def test_a_body_says_that_it_is_json(call, content_type, status):
    content = json.dumps({"model": "tiny", "prompt": "ab"}).encode()
    answer = call("/v1/completions", content=content, headers={"content-type": content_type})
    assert answer.status_code == status


def test_neutral_fields_are_known_to_every_route(call):
    body = {"lora_name": "x", "best_of": 2}
    error = call("/v1/unload_lora_adapter", body).json()["error"]
    assert (error["param"], error["code"]) == ("best_of", "unsupported_parameter")
