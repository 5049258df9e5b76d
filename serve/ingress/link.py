"""The ingress's connection to one replica: many requests at a time, each a stream of messages."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raylora.serve.ingress.balancing import Candidate
from raylora.serve.ingress.frames import FrameProtocol, Word

CONNECT_S = 5.0


@dataclass(frozen=True)
class Address:
    """Where a replica listens, as it tells through Ray."""

    id: str
    host: str
    port: int
    secret: str


class LinkLost(Exception):
    """The replica has gone, or its answer broke off."""


@dataclass(frozen=True)
class Piece:
    """A part of an answer: the first one has the status."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    more: bool


class Link(FrameProtocol):
    """Opened by `connect`; `lost` is called once when it ends."""

    def __init__(self, address: Address, lost: Callable[["Link"], None]) -> None:
        super().__init__()
        self.address = address
        self.ready = asyncio.Event()
        """Set once the replica has told its state."""
        self._lost = lost
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Queue[Any]] = {}
        self._state: dict[str, Any] = {}
        self._names: frozenset[str] = frozenset()

    @property
    def candidate(self) -> Candidate:
        """The replica as it is now, to be balanced by."""
        return Candidate(
            id=self.address.id,
            open=len(self._answers),
            limit=self._state["limit"],
            batch=self._state["batch"],
            names=self._names,
            draining=self._state["draining"],
        )

    async def request(
        self, scope: Mapping[str, Any], body: bytes, limit_s: float
    ) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer; closing it early tells the replica that the client has gone.

        Raises LinkLost where the replica goes before the last one, TimeoutError after limit_s.
        """
        deadline = asyncio.get_running_loop().time() + limit_s
        number = next(self._numbers)
        answer: asyncio.Queue[Any] = asyncio.Queue()
        self._answers[number] = answer
        self.send(number, Word.OPEN, scope, body)
        status, headers, more = 0, [], True
        try:
            while more:
                async with asyncio.timeout_at(deadline):
                    frame = await answer.get()
                match frame:
                    case [_, Word.START, status, headers]:
                        pass
                    case [_, Word.BODY, piece, more]:
                        yield Piece(status, headers, piece, more)
                    case _:
                        raise LinkLost(self.address.id)
        finally:
            del self._answers[number]
            if more:
                self.send(number, Word.GONE)

    def received(self, frame: Any) -> None:
        """A piece of an answer, or what the replica holds and has to do."""
        match frame:
            case [0, Word.STATE, dict(state)]:
                self._state = state
                self._names = frozenset(state["names"])
                self.ready.set()
            case [int(number), *_]:
                if answer := self._answers.get(number):
                    answer.put_nowait(frame)
            case _:
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: everything that is open here breaks off."""
        for answer in self._answers.values():
            answer.put_nowait(None)
        self._lost(self)


async def connect(address: Address, lost: Callable[[Link], None]) -> Link:
    """A link that is ready. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_S):
        _, link = await loop.create_connection(
            lambda: Link(address, lost), address.host, address.port
        )
        link.say(address.secret)
        await link.ready.wait()
    return link
