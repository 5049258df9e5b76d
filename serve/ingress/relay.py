"""The ingress's ASGI application: passes requests on to replicas, and survives them.

An answer that has not begun is asked for again elsewhere when its replica dies. A stream that has
begun ends with an error event, never in silence.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import from_json
from starlette.types import Receive, Scope, Send

from raylora.serve.edge.request_record import record_in
from raylora.serve.http.api_errors import (
    ApiError,
    all_failed,
    deadline_passed,
    no_replica,
    queue_full,
    replica_lost,
)
from raylora.serve.http.body_limit import MAX_BODY_BYTES, read_body
from raylora.serve.http.sse import sse
from raylora.serve.ingress.fan_out import merged, reaches_all, unloads
from raylora.serve.ingress.frames import portable
from raylora.serve.ingress.link import Link, LinkLost, Piece
from raylora.serve.ingress.replicas import Replicas

RETRY_AFTER_S = 1
REPLACED_AFTER_S = 10
"""Serve looks at replicas each 5 s, and a new one with a small base is there about 5 s later."""
TRIES = 3
"""Replicas that an answer is asked for at before it is given up."""
GRACE_S = 5.0
"""A replica ends what takes too long by itself; one that hangs is not waited for longer."""
JSON = [(b"content-type", b"application/json")]
EVENTS = b"text/event-stream"
RAYS_OWN = (b"x-request-timeout-seconds", b"x-request-disconnect-disabled")
"""Headers by which Ray Serve lets clients lift its limits; they end here."""


class Relay:
    """One application for all clients."""

    def __init__(
        self, replicas: Replicas, *, timeout_s: float, metrics: Callable[[], str]
    ) -> None:
        """timeout_s: after this long a replica ends a request itself; metrics: of the ingress."""
        self._replicas = replicas
        self._timeout_s = timeout_s
        self._metrics = metrics
        self.open_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        self.open_requests += 1
        try:
            await self._answer(scope, receive, send)
        except ApiError as error:
            record_in(scope).refused = True
            await error.response()(scope, receive, send)
        finally:
            self.open_requests -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/healthz" and not self._replicas.links:
            # Nothing is wrong where the replicas were scaled to zero or are on their way.
            await _send(Piece(200, JSON, b'{"status":"ok","replicas":0}', False), send)
            return
        body = await read_body(scope, receive, MAX_BODY_BYTES)
        told = portable(scope)
        told["headers"] = [pair for pair in scope["headers"] if pair[0] not in RAYS_OWN]
        if reaches_all(scope["method"], scope["path"]):
            await _send(await self._from_all(told, body), send)
            return
        watch = _cancelled_when_gone(receive)
        try:
            await self._from_one(told, body, send)
        except asyncio.CancelledError:
            if not watch.done():
                raise
        finally:
            watch.cancel()

    async def _from_one(self, told: Mapping[str, Any], body: bytes, send: Send) -> None:
        """Pass on the answer of the first replica that begins one."""
        for _ in range(TRIES):
            link = await self._picked(told["method"], body)
            exchange = link.request(told, body, self._timeout_s + GRACE_S)
            begun: Piece | None = None
            try:
                while begun is None or begun.more:
                    piece = await exchange.next()
                    await _send(piece, send, is_first=begun is None)
                    begun = piece
                return
            except TimeoutError as error:
                failure = deadline_passed(self._timeout_s)
                if begun is None:
                    raise failure from error
            except LinkLost:
                failure = replica_lost()
            finally:
                exchange.close()
            if begun is not None:
                await _send(_last(begun, failure), send, is_first=False)
                return
        raise replica_lost()

    async def _picked(self, method: str, body: bytes) -> Link:
        """What only looks is answered however much there is to generate."""
        try:
            if method == "GET":
                return (await self._replicas.present(self._timeout_s))[0]
            link = await self._replicas.pick(lambda: _model(body), self._timeout_s)
        except TimeoutError as error:
            raise no_replica(self._timeout_s) from error
        if link is None:
            candidates = [link.candidate for link in self._replicas.links]
            if all(candidate.failed for candidate in candidates):
                raise all_failed(REPLACED_AFTER_S)
            raise queue_full(sum(candidate.open for candidate in candidates), RETRY_AFTER_S)
        return link

    async def _from_all(self, told: Mapping[str, Any], body: bytes) -> Piece:
        """What every replica says, as one answer."""
        await self._picked("GET", b"")
        links = self._replicas.links
        asked = (_whole(link, told, body, self._timeout_s) for link in links)
        heard = await asyncio.gather(*asked, return_exceptions=True)
        if told["method"] != "GET" and any(isinstance(each, TimeoutError) for each in heard):
            # It may not be done there: lists do without a replica, a change does not.
            raise deadline_passed(self._timeout_s)
        answers = {
            link.address.id: answer
            for link, answer in zip(links, heard, strict=True)
            if isinstance(answer, Piece)
        }
        if not answers:
            raise replica_lost()
        unloading = unloads(told["method"], told["path"])
        return merged(answers, self._metrics, unloading=unloading)


async def _send(piece: Piece, send: Send, *, is_first: bool = True) -> None:
    if is_first:
        start = {"status": piece.status, "headers": piece.headers}
        await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": piece.body, "more_body": piece.more})


async def _whole(link: Link, told: Mapping[str, Any], body: bytes, limit_s: float) -> Piece:
    exchange = link.request(told, body, limit_s)
    pieces: list[Piece] = []
    try:
        while not pieces or pieces[-1].more:
            pieces.append(await exchange.next())
    finally:
        exchange.close()
    return replace(pieces[-1], body=b"".join(piece.body for piece in pieces))


def _last(begun: Piece, failure: ApiError) -> Piece:
    """The end of an answer that broke off: an event, where it is a stream of events."""
    streamed = any(
        name == b"content-type" and value.startswith(EVENTS) for name, value in begun.headers
    )
    return replace(begun, body=sse(failure.content()) if streamed else b"", more=False)


def _model(body: bytes) -> str:
    """The model that a body names; empty where it names none: the replica says what is wrong."""
    try:
        value = from_json(body)["model"] if body else ""
    except (ValueError, KeyError, TypeError):
        return ""
    return value if isinstance(value, str) else ""


def _cancelled_when_gone(receive: Receive) -> asyncio.Task[None]:
    """Watches the client, and cancels the running task when it goes."""
    answering = asyncio.current_task()
    assert answering is not None

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        answering.cancel()

    return asyncio.ensure_future(watch())
