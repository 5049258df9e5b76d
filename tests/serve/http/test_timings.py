"""Where a request's time went, beside its usage."""

import pytest
from tests.serve.http.asking import chat, events_of

STEP_MS = 20


@pytest.fixture(autouse=True)
def slow(engine) -> None:
    engine.step_seconds = STEP_MS / 1000


def test_an_answer_tells_its_times_and_speed(call):
    body = chat(call, max_tokens=6).json()
    told = body["timings"]
    assert told["prompt_n"] == body["usage"]["prompt_tokens"]
    assert told["predicted_n"] == body["usage"]["completion_tokens"] == 6
    # The first token after one step, five more after five.
    assert told["queue_ms"] >= 0
    assert told["prompt_ms"] >= 0.9 * STEP_MS
    assert told["predicted_ms"] >= 4.5 * STEP_MS
    assert told["predicted_per_second"] == pytest.approx(5000 / told["predicted_ms"], rel=0.01)


def test_one_token_has_no_speed(call):
    told = chat(call, max_tokens=1).json()["timings"]
    assert (told["predicted_n"], told["predicted_ms"]) == (1, 0)
    assert told["predicted_per_second"] is None


@pytest.mark.parametrize("with_usage", [False, True])
def test_the_last_chunk_of_a_stream_has_them(call, with_usage):
    usage = {"stream_options": {"include_usage": True}} if with_usage else {}
    *chunks, last, done = events_of(chat(call, stream=True, max_tokens=4, n=2, **usage))
    assert done == "[DONE]"
    assert not any("timings" in chunk for chunk in chunks)
    assert last["timings"]["predicted_n"] == 8
    assert ("usage" in last) == with_usage
