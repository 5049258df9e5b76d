"""What a request may ask: lengths, sampling, grammars, tools, several answers, logprobs."""

from asyncio import run
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.serve.http.asking import HELLO, RENDERED, chat, events_of, request, schema_of

from raylora.config.serve_spec import BatchingSpec


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
        return run(request(endpoint, "POST", path, json=body))

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
