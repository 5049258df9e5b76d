"""The routes: OpenAI's API and what raylora adds to it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Send

from raylora import __version__
from raylora.serve.adapters.resident import Lease
from raylora.serve.edge.caller import caller_of, permitted
from raylora.serve.edge.edge import Edge
from raylora.serve.edge.request_record import RequestRecord, record_of
from raylora.serve.http import adapter_routes, api_errors
from raylora.serve.http.answers import Answer, Events, Kind
from raylora.serve.http.endpoint import Endpoint
from raylora.serve.http.listings import model_card, model_cards
from raylora.serve.http.protocol import ChatBody, CompletionBody, GenerationBody, ModelCard

T = TypeVar("T")

ADAPTER_HEADER = "x-raylora-adapter"
"""name@version that answered; absent where the base did."""


def create_app(endpoint: Endpoint, edge: Edge | None = None) -> FastAPI:
    """The ASGI application of one replica; without an edge it is open to all who reach it."""
    app = FastAPI(title="raylora", version=__version__)
    api_errors.install(app)
    (edge or Edge()).surround(app, endpoint)
    _add_generation(app, endpoint)
    _add_listings(app, endpoint)
    adapter_routes.add(app, endpoint)
    return app


def _add_generation(app: FastAPI, endpoint: Endpoint) -> None:
    @app.post("/v1/chat/completions")
    async def chat(body: ChatBody, request: Request) -> Any:
        def prompts(lease: Lease) -> list[list[int]]:
            return [endpoint.chat_prompt(body, lease)]

        limit = body.max_completion_tokens or body.max_tokens
        return await _answer(endpoint, Kind.CHAT, body, prompts, limit, request)

    @app.post("/v1/completions")
    async def complete(body: CompletionBody, request: Request) -> Any:
        def prompts(lease: Lease) -> list[list[int]]:
            return endpoint.prompts(body)

        return await _answer(endpoint, Kind.COMPLETION, body, prompts, body.max_tokens, request)


def _add_listings(app: FastAPI, endpoint: Endpoint) -> None:
    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        key = caller_of(request).key
        cards = [card for card in await model_cards(endpoint) if key.may_use(card.id)]
        return {"object": "list", "data": cards}

    @app.get("/v1/models/{model}")
    async def model(model: str, request: Request) -> ModelCard:
        key = await permitted(caller_of(request), model, endpoint.resolve)
        return model_card(endpoint, model, key)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        if endpoint.engine.is_alive:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "the engine has failed"}, status_code=503)


async def _answer(
    endpoint: Endpoint,
    kind: Kind,
    body: GenerationBody,
    prompts: Callable[[Lease], list[list[int]]],
    max_tokens: int | None,
    request: Request,
) -> Any:
    """Generate for a request; the version is held until the last token."""
    caller, record = caller_of(request), record_of(request)
    number = body.n or 1
    record.model, record.streamed, record.answers = body.model, bool(body.stream), number
    acquire = partial(endpoint.acquire, user=body.user)
    lease = await permitted(caller, body.model, acquire)
    record.answered_by = lease.name
    answer = Answer(kind, lease.name, endpoint.fingerprint, endpoint.vocabulary, number)
    try:
        sampling = endpoint.sampling(body, max_tokens)
        asked = prompts(lease)
        settle = caller.reserve(endpoint.most_tokens(asked, sampling, number))
    except BaseException:
        lease.release()
        raise
    events = _held(lease, endpoint.generate(asked, lease, sampling, number), record, settle)
    headers = {ADAPTER_HEADER: lease.adapter} if lease.adapter else {}
    if not body.stream:
        whole = await _while_connected(request, answer.whole(events))
        return JSONResponse(whole, headers=headers)
    # What fails before the first token still gets a status of its own.
    first = await _while_connected(request, _first(events))
    stream = answer.streamed(_resumed(first, events), body.wants_usage)
    return EventStream(stream, media_type="text/event-stream", headers=headers)


class EventStream(StreamingResponse):
    """Closes its generator at once when the client goes, which frees the row."""

    async def stream_response(self, send: Send) -> None:
        """Send the pieces."""
        stream = self.body_iterator
        try:
            await super().stream_response(send)
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()


async def _held(
    lease: Lease, events: Events, record: RequestRecord, settle: Callable[[int], None]
) -> Events:
    try:
        async for item in events:
            record.saw(*item)
            yield item
    except api_errors.ApiError as error:
        record.broke(error)
        raise
    finally:
        await events.aclose()
        lease.release()
        settle(record.prompt_tokens + record.completion_tokens)


async def _first(events: Events) -> Any:
    try:
        return await anext(events)
    except BaseException:
        await events.aclose()
        raise


async def _resumed(first: Any, events: Events) -> Events:
    try:
        yield first
        async for item in events:
            yield item
    finally:
        await events.aclose()


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled if the client goes away."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise api_errors.client_gone()
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
