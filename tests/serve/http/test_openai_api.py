"""The routes, with an engine that repeats the prompt."""

from asyncio import run
from dataclasses import replace

import pytest
from tests.serve.http.asking import HELLO, RENDERED, chat, events_of, request

from raylora.config.serve_spec import BatchingSpec


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
    assert by_id["home@2"]["quantization"] == "nf4"
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
    answer = run(request(endpoint, "POST", "/v1/chat/completions", json=body))
    engine.may_step.set()
    assert answer.status_code == 408
    assert answer.headers["x-should-retry"] == "false"
    assert endpoint.engine.open_requests == 0
    assert [resident.in_use for resident in endpoint.residency.residents] == [0]


def test_health_follows_the_engine(get, endpoint):
    assert get("/healthz").json() == {"status": "ok"}
    endpoint.engine.stop()
    assert get("/healthz").status_code == 503
