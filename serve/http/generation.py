"""The routes that generate: chat and plain completions, whole or streamed."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic_core import to_json

from raylora.serve.adapters.resident import Lease
from raylora.serve.edge.caller import caller_of, permitted
from raylora.serve.edge.request_record import RequestRecord, record_of
from raylora.serve.http.answers import Answer, Events, Kind
from raylora.serve.http.api_errors import ApiError
from raylora.serve.http.connected import while_connected
from raylora.serve.http.endpoint import Endpoint
from raylora.serve.http.event_stream import EventStream
from raylora.serve.http.protocol import ChatBody, CompletionBody, GenerationBody
from raylora.serve.http.reading import BodyRoute, Shortcut

ADAPTER_HEADER = "x-raylora-adapter"
"""name@version that answered; absent where the base did."""

Prompts = Callable[[Lease], list[list[int]]]
"""Token ids of a body's prompts, as the version that answers reads them."""


def add(app: FastAPI, endpoint: Endpoint) -> None:
    """Add the routes of one replica."""

    async def chat(body: ChatBody, request: Request) -> Response:
        def prompts(lease: Lease) -> list[list[int]]:
            return endpoint.prompting.chat(body, lease.chat_template)

        return await _answer(endpoint, Kind.CHAT, body, prompts, request)

    async def complete(body: CompletionBody, request: Request) -> Response:
        def prompts(lease: Lease) -> list[list[int]]:
            return endpoint.prompting.plain(body)

        return await _answer(endpoint, Kind.COMPLETION, body, prompts, request)

    for path, route in (("/v1/chat/completions", chat), ("/v1/completions", complete)):
        app.router.add_api_route(
            path, route, methods=["POST"], response_model=None, route_class_override=BodyRoute
        )
    routes = [route for route in app.routes if isinstance(route, BodyRoute)]
    app.add_middleware(Shortcut, routes=routes)


async def _answer(
    endpoint: Endpoint, kind: Kind, body: GenerationBody, prompts: Prompts, request: Request
) -> Response:
    """Generate for a request; the version is held until the last token."""
    caller, record = caller_of(request), record_of(request)
    number = body.n or 1
    record.model, record.streamed, record.answers = body.model, bool(body.stream), number
    lease = await permitted(caller, body.model, partial(endpoint.acquire, user=body.user))
    record.answered_by = lease.name
    try:
        sampling = endpoint.prompting.sampling(body)
        asked = prompts(lease)
        settle = caller.reserve(endpoint.prompting.most_tokens(asked, sampling, number))
    except BaseException:
        lease.release()
        raise
    answer = Answer(
        kind, lease.name, endpoint.fingerprint, endpoint.vocabulary, record, len(asked) * number
    )
    events = _held(lease, endpoint.generate(asked, lease, sampling, number), record, settle)
    headers = {ADAPTER_HEADER: lease.adapter} if lease.adapter else {}
    if not body.stream:
        whole = await while_connected(request.receive, answer.whole(events))
        return Response(to_json(whole), headers=headers, media_type="application/json")
    # What fails before the first token still gets a status of its own.
    first = await while_connected(request.receive, _first(events))
    return EventStream(answer.streamed(_resumed(first, events), body.wants_usage), headers)


async def _held(
    lease: Lease, events: Events, record: RequestRecord, settle: Callable[[int], None]
) -> Events:
    try:
        async for item in events:
            record.saw(*item)
            yield item
    except ApiError as error:
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
