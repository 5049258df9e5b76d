"""vLLM behind the routes: requests to its server, its events back, its slots for adapters."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import httpx
from transformers import AutoConfig

from raylora.config.serve_spec import ServeSpec
from raylora.engine.request import Event, Request
from raylora.errors import InvalidAdapter, RayloraError
from raylora.lora.base import linear_shapes_of
from raylora.lora.integrity import AdapterFacts, verify
from raylora.lora.sources import LocalModel
from raylora.serve.adapters.loading import MakeRoom
from raylora.serve.engines import Running
from raylora.serve.vllm.protocol import Answering, body_of
from raylora.serve.vllm.server import start_server

COMPLETIONS = "/v1/completions"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
CONNECT_S = 5.0


class Server(Protocol):
    """What VllmServer is; the seam for tests."""

    url: str
    headers: dict[str, str]

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class VllmEngine:
    """A ServingEngine over vLLM's completions route. Used from one event loop."""

    def __init__(self, server: Server, base: str, *, step_timeout_s: float) -> None:
        """A server that says nothing to any open request for longer is taken to hang."""
        self.open_requests = 0
        self.base = base
        self._server = server
        self._step_timeout_s = step_timeout_s
        self._heard_at = 0.0
        """Of the last event, or of the request that was the first to wait for one."""
        self._client: httpx.AsyncClient | None = None
        self._asking: set[asyncio.Task[None]] = set()
        """Also those that are being broken off."""

    @property
    def failure(self) -> str | None:
        """Why requests are not worked on any more; None while they are."""
        if not self._server.is_alive:
            return "vLLM has ended"
        silent_s = time.monotonic() - self._heard_at
        if self.open_requests and silent_s > self._step_timeout_s:
            return f"vLLM hangs: no token of {self.open_requests} requests for {silent_s:.0f} s"
        return None

    async def stats(self) -> None:
        """None: vLLM has metrics of its own."""

    def stop(self) -> None:
        """End vLLM."""
        self._server.stop()

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Event, None]:
        """Events of these requests until all have ended; closing it early cancels the rest."""
        events: asyncio.Queue[Event] = asyncio.Queue()
        unfinished = {request.id for request in requests}
        if not self.open_requests:
            self._heard_at = time.monotonic()
        self.open_requests += len(unfinished)
        asking = [asyncio.ensure_future(self._ask(request, events)) for request in requests]
        self._asking.update(asking)
        try:
            while unfinished:
                event = await events.get()
                if event.completion is not None:
                    unfinished.discard(event.id)
                    self.open_requests -= 1
                yield event
        finally:
            self.open_requests -= len(unfinished)
            # vLLM drops a request whose connection is closed. That is not waited for: who closes
            # this may be cancelled at each wait, and has the adapter to let go of.
            for task in asking:
                task.add_done_callback(self._asking.discard)
                task.cancel()

    async def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """One plain call. Raises RayloraError where vLLM does not answer."""
        try:
            return await self._connected().post(path, json=body)
        except httpx.HTTPError as error:
            raise RayloraError(f"vLLM does not answer: {error}") from error

    async def _ask(self, request: Request, events: "asyncio.Queue[Event]") -> None:
        """Put the events of one request into the queue, the last one always with a completion."""
        answer = Answering(request)
        try:
            async for chunk in self._chunks(body_of(request, self.base)):
                self._heard_at = time.monotonic()
                event = answer.take(chunk)
                if event is not None:
                    events.put_nowait(event)
                    if event.completion is not None:
                        return
            events.put_nowait(answer.failed("vLLM ended the answer without a reason"))
        except Exception as error:
            events.put_nowait(answer.failed(f"vLLM: {error or type(error).__name__}"))

    async def _chunks(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        async with self._connected().stream("POST", COMPLETIONS, json=body) as response:
            if not response.is_success:
                yield {"error": {"message": _said((await response.aread()).decode())}}
                return
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line[6:])

    def _connected(self) -> httpx.AsyncClient:
        """Made where it is used first: a client belongs to one event loop."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                base_url=self._server.url,
                headers=self._server.headers,
                trust_env=False,
                # The endpoint has deadlines of its own, and the queue in front of this counts.
                timeout=httpx.Timeout(None, connect=CONNECT_S),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            )
        return self._client


class VllmSlots:
    """vLLM's LoRA slots. It keeps `capacity` in memory and moves them to the device by itself."""

    def __init__(
        self,
        engine: VllmEngine,
        capacity: int,
        max_rank: int,
        linears: dict[str, tuple[int, int]],
        base_revision: str | None,
    ) -> None:
        self.capacity = capacity
        self._engine = engine
        self._max_rank = max_rank
        self._linears = linears
        self._base_revision = base_revision

    async def add(
        self,
        key: str,
        directory: Path,
        make_room: MakeRoom,
        *,
        manifest_required: bool = True,
    ) -> AdapterFacts:
        """Check as for the bank, make room, and have vLLM load it. Raises InvalidAdapter."""
        facts = await asyncio.to_thread(
            verify,
            directory,
            linears=self._linears,
            base_revision=self._base_revision,
            manifest_required=manifest_required,
        )
        if facts.r > self._max_rank:
            raise InvalidAdapter(
                f"{directory}: rank {facts.r} is over vllm.max_lora_rank={self._max_rank}",
                hint="raise vllm.max_lora_rank and start the endpoint again",
            )
        await make_room(facts.bytes)
        given = {"lora_name": key, "lora_path": str(directory.resolve())}
        response = await self._engine.post(LOAD, given)
        if not response.is_success:
            raise InvalidAdapter(f"vLLM refuses {key}: {_said(response.text)}")
        return facts

    async def remove(self, key: str) -> None:
        """Unload."""
        response = await self._engine.post(UNLOAD, {"lora_name": key})
        if not response.is_success:
            raise RayloraError(f"vLLM does not unload {key}: {_said(response.text)}")

    def tier(self, key: str) -> str:
        """Its own memory; vLLM does not tell which of them are on the device now."""
        return "host"


def start_vllm(spec: ServeSpec, local: LocalModel) -> Running:
    """Start the server and connect to it."""
    config = AutoConfig.from_pretrained(local.path)
    max_length = min(spec.model.max_length, int(config.max_position_embeddings))
    engine = VllmEngine(
        start_server(spec, local, max_length),
        spec.model.name,
        step_timeout_s=spec.batching.step_timeout_s,
    )
    slots = VllmSlots(
        engine,
        spec.max_adapters,
        spec.vllm.max_lora_rank,
        linear_shapes_of(config),
        local.revision,
    )
    return Running(engine, slots, max_length)


def _said(body: str) -> str:
    """The message of an error in OpenAI's shape, or the body as it is."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        found = json.loads(body)
        return str(found.get("error", found)["message"])
    return body[:500]
