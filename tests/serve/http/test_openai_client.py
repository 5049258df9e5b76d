"""OpenAI's own Python client, unchanged, against the routes behind a real HTTP server."""

import time
from collections.abc import Iterator

import openai
import pytest
from tests.serve.http_server import serving

from raylora.serve.http.openai_api import create_app

HELLO: list = [{"role": "user", "content": "hello"}]
LONG: list = [{"role": "user", "content": "x" * 900}]


@pytest.fixture
def url(endpoint) -> Iterator[str]:
    with serving(create_app(endpoint)) as address:
        yield f"{address}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as made:
        yield made


def test_chat(client):
    answer = client.chat.completions.create(model="home", messages=HELLO, temperature=0)
    assert answer.model == "home@2"
    assert "hello" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens > 0


def test_chat_streamed(client):
    pieces: list[str] = []
    usage, reason = None, None
    for chunk in client.chat.completions.create(
        model="home@3", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            reason = choice.finish_reason or reason
    assert "".join(pieces).startswith("[home@3]")
    assert reason == "stop"
    assert usage is not None
    assert usage.completion_tokens > 0


def test_completions_whole_and_streamed(client):
    whole = client.completions.create(model="tiny", prompt=["ab", "cd"], max_tokens=20)
    assert [choice.text for choice in whole.choices] == ["[base] ab", "[base] cd"]
    stream = client.completions.create(model="tiny", prompt="ab", max_tokens=20, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "[base] ab"


def test_several_answers_with_how_likely_their_tokens_were(client):
    answer = client.chat.completions.create(
        model="home", messages=HELLO, n=2, logprobs=True, top_logprobs=1, max_tokens=4
    )
    for choice in answer.choices:
        told = choice.logprobs.content
        assert "".join(each.token for each in told) == choice.message.content
        assert told[0].top_logprobs[0].logprob == -0.5
    whole = client.completions.create(model="tiny", prompt="ab", logprobs=1, max_tokens=4)
    assert whole.choices[0].logprobs.tokens == list("[bas")
    assert whole.choices[0].logprobs.text_offset == [0, 1, 2, 3]


def test_models(client):
    assert {model.id for model in client.models.list()} == {"tiny", "home", "sums"}
    assert client.models.retrieve("home@1").id == "home@1"


def test_errors_are_the_clients_own(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=HELLO, n=0)
    assert refused.value.param == "n"


def test_an_error_in_mid_stream_is_raised(client, engine):
    engine.fails_after = 4
    with pytest.raises(openai.APIError, match="no luck"):
        list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True))


def test_a_client_that_leaves_a_stream_frees_its_row(client, engine, endpoint):
    engine.step_seconds = 0.02
    stream = client.chat.completions.create(model="home", messages=LONG, stream=True)
    next(iter(stream))
    stream.close()
    assert_all_is_free(engine, endpoint)


def test_a_client_that_waits_no_longer_frees_its_row(client, engine, endpoint):
    engine.step_seconds = 0.02
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(model="home", messages=LONG)
    assert_all_is_free(engine, endpoint)


def assert_all_is_free(engine, endpoint) -> None:
    wait_until(lambda: endpoint.engine.open_requests == 0 and not engine.has_work)
    assert len(engine.cancelled) == 1
    assert [resident.in_use for resident in endpoint.residency.residents] == [0]


def wait_until(condition) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
