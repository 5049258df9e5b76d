"""Requests and answers in vLLM's words."""

from raylora.engine.grammar import grammar_of
from raylora.engine.logprobs import TokenLogprob
from raylora.engine.request import FinishReason, Request
from raylora.engine.sampling import Sampling
from raylora.serve.vllm.protocol import Answering, body_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def request(adapter: str | None = None, **sampling) -> Request:
    return Request("r", (1, 2, 3), adapter, Sampling(8, **sampling))


def chunk(text: str, tokens: list[int], reason: str | None = None, **more):
    choice = {"index": 0, "text": text, "token_ids": tokens, "finish_reason": reason, **more}
    return {"choices": [choice]}


def test_a_request_is_asked_of_its_adapter():
    assert body_of(request("home@2"), "base")["model"] == "home@2"
    assert body_of(request(), "base")["model"] == "base"


def test_what_a_request_asks_is_passed_on():
    body = body_of(
        request(
            temperature=0.5,
            top_p=0.9,
            top_k=7,
            min_p=0.1,
            seed=3,
            stop=("END",),
            presence_penalty=0.1,
            frequency_penalty=0.2,
            repetition_penalty=1.3,
            logit_bias=((5, -1.0),),
            logprobs=2,
        ),
        "base",
    )
    assert body["prompt"] == [1, 2, 3]
    assert body["max_tokens"] == 8
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (0.5, 0.9, 7, 0.1)
    assert (body["seed"], body["stop"], body["logit_bias"]) == (3, ["END"], {"5": -1.0})
    penalties = ("presence_penalty", "frequency_penalty", "repetition_penalty")
    assert [body[name] for name in penalties] == [0.1, 0.2, 1.3]
    assert body["logprobs"] == 2
    assert body["stream"] and body["return_token_ids"]


def test_what_a_request_leaves_out_is_left_out():
    assert not {"seed", "stop", "logit_bias", "logprobs", "structured_outputs"} & set(
        body_of(request(), "base")
    )


def test_a_grammar_goes_as_the_schema_it_was_made_of():
    body = body_of(request(grammar=grammar_of(SCHEMA)), "base")
    assert body["structured_outputs"] == {"json": SCHEMA}


def test_an_answer_is_the_sum_of_its_chunks():
    answer = Answering(request("home@2"))
    first = answer.take(chunk("He", [10]))
    assert first is not None and (first.text, first.completion) == ("He", None)
    assert answer.take(chunk("", [11])) is None
    assert answer.take({"choices": []}) is None
    last = answer.take(chunk("y", [12], "stop"))
    assert last is not None and last.completion is not None
    done = last.completion
    assert (done.text, done.token_ids, done.prompt_tokens) == ("Hey", (10, 11, 12), 3)
    assert done.finish_reason is FinishReason.STOP


def test_logprobs_are_read_as_token_ids():
    found = {
        "tokens": ["token_id:10"],
        "token_logprobs": [-0.25],
        "top_logprobs": [{"token_id:11": -2.0, "token_id:10": -0.25}],
    }
    event = Answering(request(logprobs=2)).take(chunk("He", [10], logprobs=found))
    assert event is not None
    assert event.logprobs == (TokenLogprob(10, -0.25, ((10, -0.25), (11, -2.0))),)


def test_failures_end_the_answer():
    for said in ({"error": {"message": "no room"}}, chunk("", [], "error")):
        event = Answering(request()).take(said)
        assert event is not None and event.completion is not None
        assert event.completion.finish_reason is FinishReason.ERROR
    aborted = Answering(request()).take(chunk("", [], "abort"))
    assert aborted is not None and aborted.completion is not None
    assert aborted.completion.finish_reason is FinishReason.CANCELLED
