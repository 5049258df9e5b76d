"""A replica's side of its connections: runs the ASGI application for what the ingress relays."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message

from raylora.serve.ingress.frames import FrameProtocol, Word, scope_of

log = logging.getLogger(__name__)

TELL_S = 0.2
"""What a replica holds and has to do is told this often, where it changed."""


class AnsweringServer:
    """Listens on a port of its own; only who knows the secret is answered."""

    def __init__(self, app: ASGIApp, state: Callable[[], Mapping[str, Any]]) -> None:
        """`state` is what the ingress balances by."""
        self._app = app
        self._state = state
        self.secret = secrets.token_hex(16)
        self.port = 0
        self._draining = False
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._telling: asyncio.Task[None] | None = None

    @property
    def open_requests(self) -> int:
        """Requests that have not ended."""
        return sum(len(connection.requests) for connection in self._connections)

    async def start(self, host: str) -> None:
        """Listen on a free port of this address."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._telling = asyncio.ensure_future(self._tell())

    async def drain(self, limit_s: float) -> None:
        """Take no new requests, and return once the running ones have ended."""
        self._draining = True
        deadline = asyncio.get_running_loop().time() + limit_s
        for connection in self._connections:
            connection.send(0, Word.STATE, self.state())
        while self.open_requests and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Close everything."""
        if self._telling is not None:
            self._telling.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()

    def state(self) -> dict[str, Any]:
        """What is told to the ingress."""
        return {**self._state(), "draining": self._draining}

    def joined(self, connection: "Connection") -> None:
        """An ingress has shown the secret."""
        self._connections.add(connection)
        connection.send(0, Word.STATE, self.state())

    def left(self, connection: "Connection") -> None:
        """A connection has ended."""
        self._connections.discard(connection)

    def answer(self, connection: "Connection", number: int, told: Any, body: bytes) -> None:
        """Run the application for one request."""
        request = Relayed(connection, number, body)
        connection.requests[number] = request
        task = asyncio.ensure_future(request.run(self._app, scope_of(told)))
        task.add_done_callback(lambda _: connection.requests.pop(number, None))

    async def _tell(self) -> None:
        told: dict[str, Any] = {}
        while True:
            await asyncio.sleep(TELL_S)
            state = self.state()
            if state != told:
                for connection in self._connections:
                    connection.send(0, Word.STATE, state)
                told = state


class Connection(FrameProtocol):
    """An ingress, once it has shown the secret."""

    def __init__(self, server: AnsweringServer) -> None:
        super().__init__()
        self._server = server
        self._known = False
        self.requests: dict[int, Relayed] = {}

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio; nobody waits for the answers any more."""
        self._server.left(self)
        for request in self.requests.values():
            request.gone.set()

    def received(self, frame: Any) -> None:
        """A request, or the end of one."""
        if not self._known:
            self._known = secrets.compare_digest(str(frame), self._server.secret)
            if self._known:
                self._server.joined(self)
            else:
                self.close()
            return
        match frame:
            case [int(number), Word.OPEN, dict(told), bytes(body)]:
                self._server.answer(self, number, told, body)
            case [int(number), Word.GONE]:
                if request := self.requests.get(number):
                    request.gone.set()
            case _:
                self.close()


class Relayed:
    """One request: ASGI's receive and send over the connection."""

    def __init__(self, connection: Connection, number: int, body: bytes) -> None:
        self._connection = connection
        self._number = number
        self._body: bytes | None = body
        self._start: Message | None = None
        """Held until the first piece of the body, with which it goes as one frame."""
        self._complete = False
        self.gone = asyncio.Event()

    async def run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        """Answer; what breaks off half-way is told as broken."""
        try:
            # The application answers what fails inside it and raises it again for the log.
            with suppress(Exception):
                await app(scope, self.receive, self.send)
        finally:
            if not self._complete:
                self._connection.send(self._number, Word.BROKEN)

    async def receive(self) -> Message:
        """The body, then nothing until the client has gone."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass a piece of the answer on."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        more = message.get("more_body", False)
        piece = (bytes(message.get("body", b"")), more)
        self._complete = not more
        start, self._start = self._start, None
        if start is None:
            self._connection.send(self._number, Word.BODY, *piece)
        else:
            headers = list(start.get("headers", ()))
            self._connection.send(self._number, Word.START, start["status"], headers, *piece)
