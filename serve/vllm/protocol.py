"""Requests and events of raylora's engine as vLLM's completions route speaks them. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raylora.engine.logprobs import TokenLogprob
from raylora.engine.request import Completion, Event, FinishReason, Request

TOKEN = "token_id:"
"""How vLLM writes a token where it is told to give ids."""


def body_of(request: Request, base: str) -> dict[str, Any]:
    """JSON body of POST /v1/completions; `base` is the served name of the model itself."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": request.adapter or base,
        "prompt": list(request.prompt_ids),
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "stream": True,
        "return_token_ids": True,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.logprobs is not None:
        body |= {"logprobs": sampling.logprobs, "return_tokens_as_token_ids": True}
    if sampling.grammar is not None:
        body["structured_outputs"] = {"json": schema_of(sampling.grammar)}
    return body


def schema_of(grammar: str) -> Mapping[str, Any]:
    """The JSON schema inside a grammar that raylora.engine.grammar.grammar_of made."""
    schema: dict[str, Any] = json.loads(grammar)["grammars"][0]["json_schema"]
    return {key: value for key, value in schema.items() if key != "x-guidance"}


@dataclass
class Answering:
    """One request's answer as its chunks come."""

    request: Request
    _text: str = ""
    _tokens: list[int] = field(default_factory=list[int])
    _logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])

    def take(self, chunk: Mapping[str, Any]) -> Event | None:
        """What a chunk has to say; None for one without news."""
        if "error" in chunk:
            return self.failed(str(chunk["error"].get("message", chunk["error"])))
        if not chunk.get("choices"):
            return None
        choice = chunk["choices"][0]
        text = choice["text"]
        news = _logprobs(choice.get("logprobs"))
        self._text += text
        self._tokens += choice.get("token_ids") or ()
        self._logprobs += news
        reason = choice.get("finish_reason")
        if reason is not None:
            return Event(self.request.id, text, self._done(_reason(reason)), news)
        return Event(self.request.id, text, logprobs=news) if text or news else None

    def failed(self, error: str) -> Event:
        """The answer ends here."""
        return Event(self.request.id, "", self._done(FinishReason.ERROR, error))

    def _done(self, reason: FinishReason, error: str = "") -> Completion:
        return Completion(
            id=self.request.id,
            text=self._text,
            token_ids=tuple(self._tokens),
            finish_reason=reason,
            prompt_tokens=len(self.request.prompt_ids),
            error=error,
            logprobs=tuple(self._logprobs),
        )


def _reason(reason: str) -> FinishReason:
    """VLLM's own reasons beside OpenAI's: abort, error."""
    match reason:
        case "stop" | "length":
            return FinishReason(reason)
        case "abort":
            return FinishReason.CANCELLED
        case _:
            return FinishReason.ERROR


def _logprobs(found: Mapping[str, Any] | None) -> tuple[TokenLogprob, ...]:
    if not found:
        return ()
    tops = found.get("top_logprobs") or [None] * len(found["tokens"])
    return tuple(
        TokenLogprob(_token(token), logprob, _top(top))
        for token, logprob, top in zip(found["tokens"], found["token_logprobs"], tops, strict=True)
    )


def _top(found: Mapping[str, float] | None) -> tuple[tuple[int, float], ...]:
    pairs = ((_token(token), logprob) for token, logprob in (found or {}).items())
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))


def _token(text: str) -> int:
    return int(text.removeprefix(TOKEN))
