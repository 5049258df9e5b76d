"""Load on an endpoint of this machine: closed loops, open loops, and what came back."""

import asyncio
import json
import math
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Body = Mapping[str, Any]
REQUEST_S = 300.0


@dataclass(frozen=True)
class Reply:
    """One answered request. Times are on the monotonic clock."""

    status: int
    sent: float
    ended: float
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Any = None
    moments: tuple[float, ...] = ()
    """When each piece of a stream came."""

    @property
    def seconds(self) -> float:
        """From sending to the last byte."""
        return self.ended - self.sent

    @property
    def first_s(self) -> float:
        """To the first piece of a stream that has text."""
        return self.moments[0] - self.sent


class Caller:
    """Requests to one address, over kept connections."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(self, path: str, body: Body) -> Reply:
        """Send, and read the answer to its end."""
        sent = time.monotonic()
        async with self._session.post(path, json=body) as answer:
            raw = await answer.read()
            ended = time.monotonic()
            return Reply(answer.status, sent, ended, answer.headers, _json(raw))

    async def get(self, path: str) -> Reply:
        """The same for GET."""
        sent = time.monotonic()
        async with self._session.get(path) as answer:
            raw = await answer.read()
            return Reply(answer.status, sent, time.monotonic(), answer.headers, _json(raw))

    async def stream(self, path: str, body: Body) -> Reply:
        """Send with stream on; the body is the list of events, without [DONE].

        Raises RuntimeError where the stream breaks off without it.
        """
        sent = time.monotonic()
        async with self._session.post(path, json={**body, "stream": True}) as answer:
            if answer.status != 200:
                return Reply(
                    answer.status, sent, time.monotonic(), answer.headers, await answer.json()
                )
            events: list[Any] = []
            moments: list[float] = []
            async for event in pieces(answer):
                events.append(event)
                if text_of(event):
                    moments.append(time.monotonic())
            return Reply(200, sent, time.monotonic(), answer.headers, events, tuple(moments))

    @asynccontextmanager
    async def open_stream(self, path: str, body: Body) -> AsyncIterator[AsyncIterator[Any]]:
        """A stream whose events are read one by one; leaving the block closes the connection."""
        async with self._session.post(path, json={**body, "stream": True}) as answer:
            try:
                yield pieces(answer)
            finally:
                answer.close()


@asynccontextmanager
async def caller(
    url: str, connections: int, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Caller]:
    """Up to so many connections at once; more requests wait for one."""
    connector = aiohttp.TCPConnector(limit=connections)
    timeout = aiohttp.ClientTimeout(total=REQUEST_S)
    async with aiohttp.ClientSession(
        url, connector=connector, timeout=timeout, headers=headers
    ) as session:
        yield Caller(session)


async def pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """The JSON of server-sent events, up to [DONE]."""
    async for raw in answer.content:
        line = raw.decode().strip()
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            yield json.loads(line[6:])
    raise RuntimeError("a stream ended without [DONE]")


def text_of(event: Mapping[str, Any]) -> str:
    """New text of a chunk, chat's or a completion's."""
    choices = event.get("choices") or [{}]
    return choices[0].get("text") or choices[0].get("delta", {}).get("content") or ""


async def closed(
    send: Callable[[int], Awaitable[Reply]], workers: int, seconds: float
) -> list[Reply]:
    """So many callers, each sending its next request when the last is answered."""
    replies: list[Reply] = []
    until = time.monotonic() + seconds

    async def work() -> None:
        while time.monotonic() < until:
            replies.append(await send(len(replies)))

    await asyncio.gather(*(work() for _ in range(workers)))
    return replies


async def opened(send: Callable[[int], Awaitable[Reply]], moments: Sequence[float]) -> list[Reply]:
    """Requests at given seconds from now, whether earlier ones are answered or not."""
    started = time.monotonic()

    async def at(number: int, moment: float) -> Reply:
        await asyncio.sleep(max(0.0, started + moment - time.monotonic()))
        return await send(number)

    return await asyncio.gather(*(at(number, moment) for number, moment in enumerate(moments)))


def per_second(replies: Sequence[Reply]) -> float:
    """Answered requests a second, from the first sent to the last answered."""
    begun = min(reply.sent for reply in replies)
    return len(replies) / (max(reply.ended for reply in replies) - begun)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(round(share * len(values), 6)) - 1)]


def middle_ms(replies: Sequence[Reply]) -> float:
    """Median time of an answer in milliseconds."""
    return 1000 * statistics.median(reply.seconds for reply in replies)


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")
