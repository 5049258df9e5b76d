"""An alias that moves fifty times under load: which version answers when.

The versions take turns. A request may be answered by the version that the alias named when it was
sent, or by one that it has left no longer than the bar allows before that; its text must be that
version's own, which was asked for by number beforehand. That is in fp32: the likeliest tokens of
random adapters are nearly draws, which rounding in bf16 decides otherwise in another batch.
Requests go to all replicas, so that one that stays behind shows as a late answer.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.bars.bar import Bar, at_most, holds
from benchmarks.serve.endpoint import Endpoint, endpoint
from benchmarks.serve.load import Caller, Reply, caller
from benchmarks.serve.prompts import conversations

MOVES = 50
EVERY_S = 2.4
VERSIONS = 5
"""So many that one which is back in turn was away for longer than the bar allows."""
WITHIN_S = 5.0
REPLICAS = 2
CALLERS = 6
NEW_TOKENS = 4
NAME = "moved"
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Move:
    """An alias was pointed at a version."""

    version: int
    before: float
    """On the monotonic clock, just before the registry was told."""
    after: float
    """Just after it had taken it."""


@dataclass(frozen=True)
class Judged:
    """What a set of replies comes to."""

    failed: int
    wrong: int
    """Another version than the alias has had lately, or a text that is not its version's."""
    late_s: float
    """The longest that a request was sent after the alias had left the version that answered."""


def measure() -> Iterator[Bar]:
    """Move it, asking all the while."""
    overrides = (f"num_replicas={REPLICAS}", "cpus_per_replica=0.5", "model.dtype=fp32")
    with endpoint({NAME: VERSIONS}, *overrides) as served:
        replies, moves, texts = asyncio.run(_moved(served))
    found = judge(replies, moves, texts, WITHIN_S)
    answered = len(replies) - found.failed - found.wrong
    yield holds("alias moved 50 times under load", len(moves) - 1, MOVES, "moves")
    yield holds("  answers by a version it names", answered, len(replies), "requests")
    yield at_most("  every replica on the new one", [found.late_s], WITHIN_S, " s")


def judge(
    replies: Sequence[Reply], moves: Sequence[Move], texts: Mapping[int, str], within_s: float
) -> Judged:
    """Hold every reply against where the alias pointed. The first move is where it began."""
    failed = wrong = 0
    late = 0.0
    for reply in replies:
        if reply.status != 200:
            failed += 1
            continue
        version = int(str(reply.body["model"]).rpartition("@")[2])
        behind = _behind(reply, version, moves)
        own_text = reply.body["choices"][0]["message"]["content"] == texts.get(version)
        if behind is None or behind > within_s or not own_text:
            wrong += 1
        if behind is not None:
            late = max(late, behind)
    return Judged(failed, wrong, late)


def _behind(reply: Reply, version: int, moves: Sequence[Move]) -> float | None:
    """Seconds from the alias leaving a version to the request; None where it never named it."""
    best: float | None = None
    for number, move in enumerate(moves):
        if move.version != version or move.before > reply.ended:
            continue
        left = moves[number + 1].after if number + 1 < len(moves) else float("inf")
        behind = max(0.0, reply.sent - left)
        best = behind if best is None else min(best, behind)
    return best


async def _moved(served: Endpoint) -> tuple[list[Reply], list[Move], dict[int, str]]:
    messages = conversations(1)[0]
    body = {"messages": messages, "max_tokens": NEW_TOKENS, "temperature": 0}
    replies: list[Reply] = []
    ended = asyncio.Event()

    async def ask(call: Caller) -> None:
        while not ended.is_set():
            replies.append(await call.post(PATH, {"model": f"{NAME}@champion", **body}))

    async with caller(served.url, CALLERS) as call:
        texts = {
            number: await _text(call, {"model": f"{NAME}@{number}", **body})
            for number in range(1, VERSIONS + 1)
        }
        moves = [Move(1, time.monotonic() - WITHIN_S, time.monotonic())]
        asking = [asyncio.ensure_future(ask(call)) for _ in range(CALLERS)]
        for number in range(1, MOVES + 1):
            await asyncio.sleep(EVERY_S)
            moves.append(await asyncio.to_thread(_move, served, 1 + number % VERSIONS))
        await asyncio.sleep(WITHIN_S + 1)
        ended.set()
        await asyncio.gather(*asking)
    return replies, moves, texts


def _move(served: Endpoint, version: int) -> Move:
    before = time.monotonic()
    served.point(NAME, version)
    return Move(version, before, time.monotonic())


async def _text(call: Caller, body: Mapping[str, object]) -> str:
    reply = await call.post(PATH, body)
    if reply.status != 200:
        raise RuntimeError(f"{body['model']}: {reply.status} {reply.body}")
    return reply.body["choices"][0]["message"]["content"]
