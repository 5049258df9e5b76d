"""Replicas of one process whose applications wait where they are told to, and an ingress."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from raylora.serve.edge.observer import Observer
from raylora.serve.edge.request_record import RequestRecord
from raylora.serve.ingress.answering import AnsweringServer
from raylora.serve.ingress.link import Address
from raylora.serve.ingress.metrics_text import CONTENT_TYPE
from raylora.serve.ingress.refusals import Refusals
from raylora.serve.ingress.relay import Relay
from raylora.serve.ingress.replicas import Replicas

BODY = {"model": "home"}


class Backend:
    """A replica whose application waits where it is told to."""

    def __init__(self, name: str, limit: int = 10) -> None:
        self.name = name
        self.seen: list[dict[str, str]] = []
        self.cancelled = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.begun = asyncio.Event()
        self.tell = asyncio.Event()
        """Cleared, it says nothing about its adapters."""
        self.tell.set()
        self.refuses = 400
        """Status of its answer to what loads, where it is called bad."""
        self.unloads = 200
        """Status of its answer to what unloads."""
        self.state = {"limit": limit, "batch": 4, "names": ["home"], "failed": False}
        routes = [
            Route("/whole", self.whole, methods=["POST"]),
            Route("/stream", self.stream, methods=["POST"]),
            Route("/v1/adapters", self.adapters, methods=["GET", "POST"]),
            Route("/v1/adapters/{model}", self.unload, methods=["DELETE"]),
            Route("/v1/unload_lora_adapter", self.unload, methods=["POST"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]
        self.server = AnsweringServer(Starlette(routes=routes), lambda: self.state)

    async def whole(self, request: Request) -> JSONResponse:
        self.seen.append(dict(request.headers))
        body = await request.json()
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return JSONResponse({"by": self.name, "model": body["model"]}, headers={"x-own": "1"})

    async def stream(self, request: Request) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            yield f"data: {self.name}\n\n"
            self.begun.set()
            await self.go_on.wait()
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def adapters(self, request: Request) -> JSONResponse:
        await self.tell.wait()
        if request.method == "POST":
            status = self.refuses if self.name == "bad" else 200
            return JSONResponse({"id": self.name}, status_code=status)
        return JSONResponse({"object": "list", "data": [{"id": f"of-{self.name}"}]})

    async def unload(self, request: Request) -> JSONResponse:
        await self.tell.wait()
        return JSONResponse({"id": self.name}, status_code=self.unloads)

    async def metrics(self, request: Request) -> Response:
        text = 'raylora_requests_total{adapter="home@2",status="200"} 3\n'
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def die(self) -> None:
        await self.server.stop()


Client = httpx.AsyncClient


def counting(refusals: Refusals) -> Callable[[RequestRecord], None]:
    return lambda record: refusals.tell(record) if record.refused else None


@asynccontextmanager
async def ingress(
    *backends: Backend, wake=lambda: None, timeout_s: float = 5
) -> AsyncIterator[tuple[Client, Relay]]:
    """A client of an ingress that finds these replicas."""
    for backend in backends:
        await backend.server.start("127.0.0.1")
    there = list(backends)

    async def look() -> list[Address]:
        return [Address(b.name, "127.0.0.1", b.server.port, b.server.secret) for b in there]

    replicas = Replicas(look, wake)
    refusals = Refusals()
    relay = Relay(replicas, timeout_s=timeout_s, metrics=refusals.text)
    running = asyncio.ensure_future(replicas.run())
    while len(replicas.links) < len(backends):
        await asyncio.sleep(0.01)
    transport = httpx.ASGITransport(Observer(relay, (counting(refusals),)))
    try:
        async with Client(transport=transport, base_url="http://ingress") as client:
            yield client, relay
    finally:
        running.cancel()
        for backend in backends:
            await backend.die()


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(work())  # type: ignore[arg-type]
