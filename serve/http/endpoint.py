"""What the HTTP routes work with: the model's names and limits, the engine, the adapters."""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

from raylora.config.serve_spec import BatchingSpec, RouteSpec
from raylora.engine.request import Completion, Event, FinishReason, Request
from raylora.engine.sampling import Sampling
from raylora.engine.vocabulary import Vocabulary
from raylora.errors import InvalidAdapter, NotFound, RayloraError
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
from raylora.serve.http.prompting import Prompting, of_answer
from raylora.serve.ids import new_id

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
    prompting: Prompting = field(init=False)
    routing: Routing = field(init=False)
    _shadows: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def __post_init__(self) -> None:
        self.vocabulary = Vocabulary(self.tokenizer)
        self.prompting = Prompting(
            self.tokenizer, self.max_length, self.batching.default_max_tokens
        )
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
            await self._compare(prompts, lease, other, sampling, answers, given)
        except RayloraError as error:
            log.warning("%s answers no shadow request: %s", lease.shadow, error.message)
        except Exception:
            log.exception("a shadow request to %s failed", lease.shadow)

    async def _compare(
        self,
        prompts: Sequence[Sequence[int]],
        lease: Lease,
        other: Lease,
        sampling: Sampling,
        answers: int,
        given: Mapping[int, Completion],
    ) -> None:
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
        index = {new_id(): i for i in range(len(prompts) * answers)}
        requests = [
            Request(
                name, tuple(prompts[i // answers]), lease.adapter, of_answer(sampling, i % answers)
            )
            for name, i in index.items()
        ]
        seconds = self.batching.request_timeout_s
        deadline = asyncio.get_running_loop().time() + seconds
        events = self.engine.stream(requests)
        # Each answer has its prompt computed, as far as no prefix of it is known.
        tokens = answers * self.prompting.most_tokens(prompts, sampling, 1)
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

    async def answerable(self, wanted: Awaitable[T]) -> T:
        try:
            return await wanted
        except NotFound as error:
            raise model_not_found(_with_hint(error)) from error
        except InvalidAdapter as error:
            raise bad_request(_with_hint(error), "model", "adapter_refused") from error
        except RayloraError as error:
            raise unavailable(_with_hint(error)) from error


def fingerprint(**facts: str) -> str:
    """OpenAI's system_fingerprint: changes when what computes the answers changes."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"fp_{digest[:12]}"


def _with_hint(error: RayloraError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
