"""The routes, with an engine that repeats the prompt."""

import json
from asyncio import run
from dataclasses import replace
from typing import Any

import httpx
import pytest

from raylora.config.serve_spec import BatchingSpec
from raylora.serve.http.body_limit import MAX_BODY_BYTES
from raylora.serve.http.openai_api import create_app

HELLO = [{"role": "user", "content": "hello"}]
RENDERED = "<|user|>hello\n<|assistant|>"


def client_of(endpoint) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(endpoint), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://endpoint")


@pytest.fixture
def call(endpoint):
    """POST a body to a route; the answer."""

    def post(path: str, body=None, **extra) -> httpx.Response:
        return run(_request(endpoint, "POST", path, json=body, **extra))

    return post


@pytest.fixture
def get(endpoint):
    def fetch(path: str) -> httpx.Response:
        return run(_request(endpoint, "GET", path))

    return fetch


async def _request(endpoint, method: str, path: str, **extra) -> httpx.Response:
    async with client_of(endpoint) as client:
        return await client.request(method, path, **extra)


def chat(call, model: Any = "tiny", **fields: Any) -> httpx.Response:
    return call("/v1/chat/completions", {"model": model, "messages": HELLO, **fields})


def schema_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def events_of(answer: httpx.Response) -> list[Any]:
    lines = [line for line in answer.text.split("\n\n") if line]
    payloads = [line.removeprefix("data: ") for line in lines]
    return [text if text == "[DONE]" else json.loads(text) for text in payloads]


def test_the_base_answers_by_its_name(call):
    answer = chat(call)
    body = answer.json()
    assert answer.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == "tiny"
    assert body["system_fingerprint"].startswith("fp_")
    [choice] = body["choices"]
    assert choice["message"]["content"] == f"[base] {RENDERED}"
    assert choice["finish_reason"] == "stop"
    used = body["usage"]
    assert used["prompt_tokens"] == len(RENDERED)
    assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]
    assert "x-raylora-adapter" not in answer.headers


@pytest.mark.parametrize(
    ("model", "version"),
    [("home", "home@2"), ("home@3", "home@3"), ("home@next", "home@3"), ("sums", "sums@1")],
)
def test_the_answer_names_the_version_that_gave_it(call, model, version):
    answer = chat(call, model)
    assert answer.json()["model"] == version
    assert answer.headers["x-raylora-adapter"] == version
    assert answer.json()["choices"][0]["message"]["content"].startswith(f"[{version}]")


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("hom", "home"),
        ("home@9", "home@3"),
        ("home@chamption", "home@champion"),
        ("../x", ""),
        ("", ""),
        ("home@v2", ""),
    ],
)
def test_an_unknown_model_is_404_with_the_nearest_names(call, model, named):
    answer = chat(call, model)
    error = answer.json()["error"]
    assert answer.status_code == 404
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert named in error["message"]


def test_a_version_is_asked_in_the_template_it_was_trained_with(call, registry, tmp_path):
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}?"
    (tmp_path / "chat_template.jinja").write_text(template)
    registry.folders["sums@1"] = tmp_path
    own, other = chat(call, "sums").json(), chat(call, "home").json()
    assert own["choices"][0]["message"]["content"] == "[sums@1] hello?"
    assert other["choices"][0]["message"]["content"] == f"[home@2] {RENDERED}"


def test_what_a_template_refuses_leaves_no_hold_on_the_version(call, endpoint):
    ends_with_answer = [*HELLO, {"role": "assistant", "content": "hi"}]
    body = {"model": "sums", "messages": ends_with_answer}
    assert call("/v1/chat/completions", body).status_code == 400
    assert [resident.in_use for resident in endpoint.residency.residents] == [0]


def test_a_stream_is_pieces_then_a_reason_then_usage_then_done(call):
    answer = chat(call, "home", stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-raylora-adapter"] == "home@2"
    *chunks, usage, done = events_of(answer)
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens"] == len(RENDERED)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {chunk["model"] for chunk in chunks} == {"home@2"}
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == f"[home@2] {RENDERED}"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(chunks) > 10


def test_max_tokens_ends_an_answer_and_both_names_are_known(call):
    for field in ("max_tokens", "max_completion_tokens"):
        body = chat(call, **{field: 6}).json()
        assert body["choices"][0]["message"]["content"] == "[base]"
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["completion_tokens"] == 6


def test_stop_strings_and_sampling_reach_the_engine(call, engine):
    body = chat(call, stop=["hel"], temperature=0.3, top_p=0.5, seed=4).json()
    assert body["choices"][0]["message"]["content"] == "[base] <|user|>"
    sampling = engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.3, 0.5, 4)


def test_penalties_and_bias_reach_the_engine(call, engine):
    asked = {
        "presence_penalty": 0.5, "frequency_penalty": -1, "repetition_penalty": 1.2, "min_p": 0.1,
        "logit_bias": {"7": -100, "9": 2.5},
    }  # fmt: skip
    assert chat(call, **asked).status_code == 200
    sampling = engine.requests[0].sampling
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.5, -1)
    assert (sampling.repetition_penalty, sampling.min_p) == (1.2, 0.1)
    assert sampling.logit_bias == ((7, -100), (9, 2.5))


def test_a_schema_and_json_mode_reach_the_engine_as_grammars(call, engine):
    for wanted in ({"type": "json_object"}, schema_of({"type": "integer"}), {"type": "text"}):
        assert chat(call, response_format=wanted).status_code == 200
    mode, integer, text = (request.sampling.grammar for request in engine.requests)
    assert mode and integer and text is None
    assert "integer" in integer


def test_a_template_shows_tools_and_what_they_gave(call, registry, tmp_path):
    template = (
        "{% for t in tools or [] %}({{ t['function']['name'] }}){% endfor %}"
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}"
        "{% for c in m['tool_calls'] or [] %}{{ c['function']['arguments'] | tojson }}"
        "{% endfor %};{% endfor %}"
    )
    (tmp_path / "chat_template.jinja").write_text(template)
    registry.folders["sums@1"] = tmp_path
    function = {"name": "add", "arguments": '{"a": 1}'}
    asked = {
        "messages": [
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c1", "type": "function", "function": function}
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ],
        "tools": [{"type": "function", "function": {"name": "add"}}],
    }  # fmt: skip
    said = chat(call, "sums", **asked).json()["choices"][0]["message"]["content"]
    assert said == '[sums@1] (add)user:hello;assistant:{"a": 1};tool:2;'
    silent = chat(call, "sums", **asked, tool_choice="none").json()
    assert "(add)" not in silent["choices"][0]["message"]["content"]


def test_several_answers_to_one_prompt_have_seeds_of_their_own_and_count_it_once(call, engine):
    body = chat(call, n=3, seed=4).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [request.sampling.seed for request in engine.requests] == [4, 5, 6]
    assert body["usage"]["prompt_tokens"] == len(RENDERED)
    assert body["usage"]["completion_tokens"] == 3 * (len(f"[base] {RENDERED}") + 1)


def test_several_answers_to_several_prompts_stand_in_their_order(endpoint):
    endpoint = replace(endpoint, batching=BatchingSpec(max_batch_size=4))
    body = {"model": "tiny", "prompt": ["ab", "cd"], "n": 2}

    def call(path: str, body: dict[str, Any]) -> httpx.Response:
        return run(_request(endpoint, "POST", path, json=body))

    whole = call("/v1/completions", body).json()
    texts = [choice["text"] for choice in whole["choices"]]
    assert texts == ["[base] ab", "[base] ab", "[base] cd", "[base] cd"]
    usage = {"include_usage": True}
    *chunks, last, _ = events_of(
        call("/v1/completions", {**body, "stream": True, "stream_options": usage})
    )
    streamed = ["", "", "", ""]
    for chunk in chunks:
        [choice] = chunk["choices"]
        streamed[choice["index"]] += choice["text"]
    assert streamed == texts
    assert last["usage"] == whole["usage"]


def test_chat_tells_how_likely_its_tokens_were(call):
    [choice] = chat(call, logprobs=True, top_logprobs=2, max_tokens=3).json()["choices"]
    content = choice["logprobs"]["content"]
    assert [each["token"] for each in content] == ["[", "b", "a"]
    assert content[1]["bytes"] == [ord("b")]
    assert [each["logprob"] for each in content[1]["top_logprobs"]] == [-0.5, -1.5]
    assert content[1]["top_logprobs"][0]["token"] == "b"
    [alone] = chat(call, logprobs=True, max_tokens=1).json()["choices"]
    assert alone["logprobs"]["content"][0]["top_logprobs"] == []
    [without] = chat(call).json()["choices"]
    assert without["logprobs"] is None


def test_the_end_token_is_no_part_of_what_is_told(call):
    [choice] = chat(call, logprobs=True).json()["choices"]
    texts = [each["token"] for each in choice["logprobs"]["content"]]
    assert "".join(texts) == choice["message"]["content"]


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_a_stream_tells_of_each_token_once(call, kind):
    asked: dict[str, Any] = {"model": "tiny", "stream": True, "stop": ["hello\n<"]}
    if kind == "chat":
        asked |= {"messages": HELLO, "logprobs": True}
        answer = call("/v1/chat/completions", asked)
    else:
        asked |= {"prompt": RENDERED, "logprobs": 1}
        answer = call("/v1/completions", asked)
    *chunks, _ = events_of(answer)
    found = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    told = [each for each in found if each is not None]
    wanted = list("[base] <|user|>hello\n<")  # the stop string's tokens were generated too
    if kind == "chat":
        assert [each["token"] for piece in told for each in piece["content"]] == wanted
        return
    assert [token for piece in told for token in piece["tokens"]] == wanted
    assert [at for piece in told for at in piece["text_offset"]] == list(range(len(wanted)))
    assert told[0]["top_logprobs"] == [{"[": -0.5}]


def test_the_defaults_are_openais(call, engine):
    chat(call)
    sampling = engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.stop) == (1.0, 1.0, ())


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


def test_unknown_routes_and_methods_are_in_openais_shape(call, get):
    assert call("/v1/nothing", {}).json()["error"]["type"] == "not_found_error"
    assert get("/v1/chat/completions").status_code == 405
    assert "error" in get("/v1/chat/completions").json()


def test_models_lists_the_base_names_and_loaded_versions(call, get):
    chat(call, "home@3")
    cards = {card["id"]: card for card in get("/v1/models").json()["data"]}
    assert set(cards) == {"tiny", "home", "sums", "home@3"}
    assert cards["home"]["root"] == "home@2"
    assert cards["home"]["parent"] == "tiny"
    assert cards["tiny"]["parent"] is None
    assert get("/v1/models/home@next").json()["root"] == "home@3"
    assert get("/v1/models/other").status_code == 404


def test_adapters_says_state_use_and_system_prompt(call, get, registry):
    registry.broken.add("sums@1")
    chat(call, "home")
    refused = chat(call, "sums")
    assert refused.status_code == 400
    assert "another base" in refused.json()["error"]["message"]
    by_id = {entry["id"]: entry for entry in get("/v1/adapters").json()["data"]}
    assert by_id["home@2"]["state"] == "ready"
    assert by_id["home@2"]["aliases"] == ["champion"]
    assert by_id["home@2"]["requests"] == 1
    assert by_id["home@2"]["in_use"] == 0
    assert by_id["home@2"]["system_prompt"] == "You are home@2."
    assert by_id["sums@1"]["state"] == "failed"
    assert "another base" in by_id["sums@1"]["error"]


def test_a_failure_before_the_first_token_is_500_and_after_it_an_error_event(call, engine):
    engine.fails_after = 0
    answer = chat(call, stream=True)
    assert answer.status_code == 500
    assert "no luck" in answer.json()["error"]["message"]
    engine.fails_after = 3
    *chunks, last = events_of(chat(call, stream=True))
    assert chunks
    assert last["error"]["type"] == "server_error"


def test_a_full_queue_is_429_with_retry_after(endpoint, call):
    prompts = ["a", "b", "c", "d"]
    answer = call("/v1/completions", {"model": "tiny", "prompt": prompts})
    assert answer.status_code == 429
    assert chat(call, n=4).status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert endpoint.engine.open_requests == 0
    assert call("/v1/completions", {"model": "tiny", "prompt": prompts[:3]}).status_code == 200


def test_the_deadline_is_kept_inside_and_frees_the_row(endpoint, engine):
    endpoint = replace(endpoint, batching=BatchingSpec(request_timeout_s=0.05))
    engine.may_step.clear()
    body = {"model": "home", "messages": HELLO}
    answer = run(_request(endpoint, "POST", "/v1/chat/completions", json=body))
    engine.may_step.set()
    assert answer.status_code == 408
    assert answer.headers["x-should-retry"] == "false"
    assert endpoint.engine.open_requests == 0
    assert [resident.in_use for resident in endpoint.residency.residents] == [0]


def test_health_follows_the_engine(get, endpoint):
    assert get("/healthz").json() == {"status": "ok"}
    endpoint.engine.stop()
    assert get("/healthz").status_code == 503
