"""The ingress's connection to one replica: many requests at a time, each a stream of messages."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
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
    headers: Sequence[tuple[bytes, bytes]]
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
        self._answers: dict[int, Exchange] = {}
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
            failed=self._state["failed"],
            draining=self._state["draining"],
        )

    def request(self, scope: Mapping[str, Any], body: bytes, limit_s: float) -> "Exchange":
        """Send a request; to be closed by who asks, which tells the replica if it is early."""
        number = next(self._numbers)
        exchange = Exchange(self, number, limit_s)
        self._answers[number] = exchange
        self.send(number, Word.OPEN, scope, body)
        return exchange

    def forget(self, number: int, *, ended: bool) -> None:
        """Nobody waits for this answer any more."""
        del self._answers[number]
        if not ended:
            self.send(number, Word.GONE)

    def received(self, frame: Any) -> None:
        """A piece of an answer, or what the replica holds and has to do."""
        match frame:
            case [0, Word.STATE, dict(state)]:
                self._state = state
                self._names = frozenset(state["names"])
                self.ready.set()
            case [int(number), *told]:
                if answer := self._answers.get(number):
                    answer.take(told)
            case _:
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: everything that is open here breaks off."""
        for answer in self._answers.values():
            answer.take([Word.BROKEN])
        self._lost(self)


class Exchange:
    """One request and the pieces of its answer, as they come; read by one task."""

    def __init__(self, link: Link, number: int, limit_s: float) -> None:
        self._link = link
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._come: deque[Piece | Exception] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._status = 0
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._ended = False
        # One timer for all pieces: a timeout for each would cost 6 us.
        self._limit = self._loop.call_later(limit_s, self._put, TimeoutError())

    async def next(self) -> Piece:
        """The next piece; the last one has no more.

        Raises LinkLost where the replica goes before it, TimeoutError after the limit.
        """
        while not self._come:
            self._waiting = self._loop.create_future()
            await self._waiting
        come = self._come.popleft()
        if isinstance(come, Exception):
            raise come
        return come

    def take(self, told: Sequence[Any]) -> None:
        """A frame has come for it."""
        match told:
            case [Word.BODY, bytes(body), bool(more)]:
                pass
            case [Word.START, int(status), headers, bytes(body), bool(more)]:
                self._status, self._headers = status, headers
            case _:
                self._put(LinkLost(self._link.address.id))
                return
        self._ended = not more
        self._put(Piece(self._status, self._headers, body, more))

    def close(self) -> None:
        """To be called once."""
        self._limit.cancel()
        self._link.forget(self._number, ended=self._ended)

    def _put(self, come: Piece | Exception) -> None:
        self._come.append(come)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


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
