"""What the HTTP routes work with: the model's names and limits, the engine, the adapters."""

import asyncio
import hashlib
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, TypeVar

from raylora.config.serve_spec import BatchingSpec, RouteSpec
from raylora.engine.generator import check_length
from raylora.engine.grammar import grammar_of
from raylora.engine.prompts import chat_prompt
from raylora.engine.request import Completion, Event, FinishReason, Request
from raylora.engine.sampling import Sampling
from raylora.engine.vocabulary import Vocabulary
from raylora.errors import InvalidAdapter, InvalidRequest, NotFound, RayloraError
from raylora.serve.adapters.residency import Residency
from raylora.serve.adapters.resident import AdapterState, Lease
from raylora.serve.adapters.routing import Routing
from raylora.serve.engines import ServingEngine
from raylora.serve.http.api_errors import (
    ApiError,
    bad_request,
    deadline_passed,
    internal_error,
    model_not_found,
    queue_full,
    unavailable,
)
from raylora.serve.http.protocol import ChatBody, CompletionBody, GenerationBody

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_AFTER_S = 1
"""Seconds a client waits after 429; a batch of 16 frees a row about that often on two cores."""


@dataclass
class Endpoint:
    """One replica, apart from Ray and HTTP."""

    base: str
    """Name of the base model."""
    fingerprint: str
    tokenizer: Any
    max_length: int
    batching: BatchingSpec
    engine: ServingEngine
    residency: Residency
    routes: Mapping[str, RouteSpec] = field(default_factory=dict[str, RouteSpec])
    started: int = field(default_factory=lambda: int(time.time()))
    open_tokens: int = 0
    """Prompts of the open requests and what their answers may come to."""
    vocabulary: Vocabulary = field(init=False)
    routing: Routing = field(init=False)
    _shadows: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def __post_init__(self) -> None:
        self.vocabulary = Vocabulary(self.tokenizer)
        self.routing = Routing(self.residency, self.routes)

    @property
    def limit(self) -> int:
        """Answers that are taken at once: those that generate and those that wait."""
        return self.batching.max_batch_size + self.batching.max_queue

    def balance(self) -> dict[str, Any]:
        """What the ingress chooses among replicas by."""
        names = {self.base, *self.residency.folders.keys}
        for resident in self.residency.residents:
            if resident.state is AdapterState.READY:
                names |= {resident.key, *resident.asked_as}
        batch = self.batching.max_batch_size
        return {"limit": self.limit, "batch": batch, "names": sorted(names)}

    async def acquire(self, model: str, user: str | None = None) -> Lease:
        """A hold on the model a request names; an ApiError where it cannot answer."""
        return await self.answerable(self.routing.acquire(model, user))

    async def resolve(self, model: str) -> str | None:
        """The version a request would be answered by, None for the base; loads nothing."""
        return await self.answerable(self.residency.resolve(model))

    def chat_prompt(self, body: ChatBody, lease: Lease) -> list[int]:
        """Token ids of the conversation, in the template that the version was trained with."""
        prompt = self._rendered(body, body.shown_tools, lease)
        if body.shown_tools and prompt == self._rendered(body, (), lease):
            raise bad_request("the model's chat template shows no tools", "tools")
        return self._checked(prompt, "messages")

    def prompts(self, body: CompletionBody) -> list[list[int]]:
        """Token ids of each prompt."""
        return [self._checked(self._tokens(prompt), "prompt") for prompt in body.prompts]

    async def generate(
        self, prompts: Sequence[Sequence[int]], lease: Lease, sampling: Sampling, answers: int = 1
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """Events with the index of their answer, within the time and queue limits of the spec.

        Answers to one prompt have neighbouring indices.
        """
        finished: dict[int, Completion] = {}
        try:
            async with aclosing(self._events(prompts, lease, sampling, answers)) as events:
                async for index, event in events:
                    if event.completion is not None:
                        finished[index] = event.completion
                    yield index, event
        except ApiError as error:
            self._record(lease, failed=error.status_code != HTTPStatus.TOO_MANY_REQUESTS)
            raise
        self._record(lease, failed=False)
        if lease.shadow is not None and self.engine.open_requests < self.batching.max_batch_size:
            work = asyncio.ensure_future(self._shadow(prompts, lease, sampling, answers, finished))
            self._shadows.add(work)
            work.add_done_callback(self._shadows.discard)

    def _record(self, lease: Lease, *, failed: bool) -> None:
        if lease.adapter is not None:
            self.routing.record(lease.adapter, failed=failed)

    async def _shadow(
        self,
        prompts: Sequence[Sequence[int]],
        lease: Lease,
        sampling: Sampling,
        answers: int,
        given: Mapping[int, Completion],
    ) -> None:
        """Ask the canary the same, for nobody but the log."""
        assert lease.shadow is not None
        try:
            other = await self.residency.acquire(lease.shadow)
        except RayloraError as error:
            log.warning("%s answers no shadow request: %s", lease.shadow, error.message)
            return
        finished: dict[int, Completion] = {}
        try:
            async with aclosing(self._events(prompts, other, sampling, answers)) as events:
                async for index, event in events:
                    if event.completion is not None:
                        finished[index] = event.completion
            self._record(other, failed=False)
            self.routing.compare(
                lease, [given[i] for i in sorted(given)], [finished[i] for i in sorted(finished)]
            )
        except ApiError as error:
            self._record(other, failed=error.status_code != HTTPStatus.TOO_MANY_REQUESTS)
        finally:
            other.release()

    async def _events(
        self, prompts: Sequence[Sequence[int]], lease: Lease, sampling: Sampling, answers: int
    ) -> AsyncGenerator[tuple[int, Event], None]:
        if self.engine.open_requests + len(prompts) * answers > self.limit:
            waiting = max(0, self.engine.open_requests - self.batching.max_batch_size)
            raise queue_full(waiting, RETRY_AFTER_S)
        index = {uuid.uuid4().hex: i for i in range(len(prompts) * answers)}
        requests = [
            Request(name, tuple(prompts[i // answers]), lease.adapter, _own(sampling, i % answers))
            for name, i in index.items()
        ]
        seconds = self.batching.request_timeout_s
        deadline = asyncio.get_running_loop().time() + seconds
        events = self.engine.stream(requests)
        tokens = sum(len(each.prompt_ids) + each.sampling.max_new_tokens for each in requests)
        self.open_tokens += tokens
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise deadline_passed(seconds) from error
                done = event.completion
                if done is not None and done.finish_reason is FinishReason.ERROR:
                    raise internal_error(f"generation failed: {done.error}")
                yield index[event.id], event
        finally:
            self.open_tokens -= tokens
            await events.aclose()

    def most_tokens(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, answers: int
    ) -> int:
        """What a request may come to: its prompts, and all that its answers have room for."""
        return sum(
            len(prompt) + answers * min(sampling.max_new_tokens, self.max_length - len(prompt))
            for prompt in prompts
        )

    def sampling(self, body: GenerationBody, max_tokens: int | None) -> Sampling:
        """What the engine is to do, by OpenAI's defaults."""
        return Sampling(
            max_new_tokens=max_tokens or self.batching.default_max_tokens,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            top_k=body.top_k or 0,
            seed=body.seed,
            stop=body.stop,
            min_p=body.min_p or 0.0,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            repetition_penalty=body.repetition_penalty or 1.0,
            logit_bias=self._bias(body.logit_bias or {}),
            logprobs=body.wanted_logprobs,
            grammar=_grammar(body.wanted_schema),
        )

    def _rendered(
        self, body: ChatBody, tools: Sequence[Mapping[str, Any]], lease: Lease
    ) -> list[int]:
        messages = [message.rendered() for message in body.messages]
        try:
            return chat_prompt(self.tokenizer, messages, tools, lease.chat_template)
        except Exception as error:
            # Templates refuse some sequences of roles by raising; their message says which.
            raise bad_request(f"the chat template refuses: {error}", "messages") from error

    async def answerable(self, wanted: Awaitable[T]) -> T:
        try:
            return await wanted
        except NotFound as error:
            raise model_not_found(_with_hint(error)) from error
        except InvalidAdapter as error:
            raise bad_request(_with_hint(error), "model", "adapter_refused") from error
        except RayloraError as error:
            raise unavailable(_with_hint(error)) from error

    def _tokens(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        self._refuse_unknown(prompt, "prompt")
        return prompt

    def _bias(self, wanted: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
        self._refuse_unknown(wanted, "logit_bias")
        return tuple(wanted.items())

    def _refuse_unknown(self, tokens: Iterable[int], param: str) -> None:
        size = len(self.tokenizer)
        wrong = [token for token in tokens if not 0 <= token < size]
        if wrong:
            raise bad_request(f"token {wrong[0]} is not in 0..{size - 1}", param)

    def _checked(self, prompt: list[int], param: str) -> list[int]:
        try:
            check_length(len(prompt), self.max_length)
        except InvalidRequest as error:
            code = "context_length_exceeded" if prompt else "empty_prompt"
            raise bad_request(error.message, param, code) from error
        return prompt


def fingerprint(**facts: str) -> str:
    """OpenAI's system_fingerprint: changes when what computes the answers changes."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"fp_{digest[:12]}"


def _grammar(schema: Mapping[str, Any] | None) -> str | None:
    if schema is None:
        return None
    try:
        return grammar_of(schema)
    except InvalidRequest as error:
        raise bad_request(error.message, "response_format") from error


def _own(sampling: Sampling, number: int) -> Sampling:
    """Of the answers to one prompt each has a seed of its own."""
    if sampling.seed is None:
        return sampling
    return replace(sampling, seed=sampling.seed + number)


def _with_hint(error: RayloraError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
