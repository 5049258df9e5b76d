"""Time to the first token of an adapter that is on this disk and not loaded, over HTTP."""

import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars.bar import Bar, at_most, shown
from benchmarks.serve.endpoint import Endpoint, endpoint
from benchmarks.serve.load import Caller, Reply, caller, percentile
from benchmarks.serve.prompts import Messages, conversations
from raylora.lora.adapter_config import WEIGHTS

VERSIONS = 24
HELD = 4
"""Adapters that fit at once: with so many taking turns each is out again before its next one."""
TIMES = 1.5
NAME = "cold"
PATH = "/v1/chat/completions"


def measure() -> Iterator[Bar]:
    """Each version once to have it on this disk, once cold, and once more at once.

    The prompts of the two that are compared are new to the version from their first token on, so
    that both have all of it to compute. What a beginning that the version knew before it left
    memory saves is shown beside them.
    """
    with endpoint({NAME: VERSIONS}, f"max_adapters={HELD}") as served:
        cold, warm, known = asyncio.run(_asked(served))
        read = [_read_s(file) for file in served.box.folder.glob(f"adapters/*/{WEIGHTS}")]
    limit = TIMES * percentile(warm, 0.95) + percentile(read, 0.95)
    yield shown(
        "first token of a loaded adapter",
        [1000 * seconds for seconds in warm],
        " ms",
        f"p95 {1000 * percentile(warm, 0.95):.0f}; "
        f"cold median {1000 * statistics.median(cold):.0f}",
    )
    yield shown(
        "  of one on disk, prompt known to it before",
        [1000 * seconds for seconds in known],
        " ms",
        f"p95 {1000 * percentile(known, 0.95):.0f}",
    )
    yield at_most(
        "p95 of one on disk",
        [1000 * percentile(cold, 0.95)],
        1000 * limit,
        " ms",
        f"target: {TIMES} times a loaded one's p95, and its read of "
        f"{1000 * percentile(read, 0.95):.0f} ms",
    )


async def _asked(served: Endpoint) -> tuple[list[float], list[float], list[float]]:
    cold: list[float] = []
    warm: list[float] = []
    known: list[float] = []
    async with caller(served.url, 1) as call:
        for number in range(1, VERSIONS + 1):
            await _first(call, _prompt("first"), number)
        for number in range(1, VERSIONS + 1):
            cold.append(await _first(call, _prompt("other"), number))
            warm.append(await _first(call, _prompt("third"), number))
        for number in range(1, VERSIONS + 1):
            known.append(await _first(call, _prompt("other"), number))
    return cold, warm, known


def _prompt(beginning: str) -> Messages:
    """Always the same conversation but for one word, of one token, at its very beginning."""
    system, *others = conversations(1)[0]
    return [{**system, "content": f"{beginning}. {system['content']}"}, *others]


async def _first(call: Caller, messages: Messages, version: int) -> float:
    body = {
        "model": f"{NAME}@{version}",
        "messages": messages,
        "max_tokens": 2,
        "temperature": 0,
    }
    reply: Reply = await call.stream(PATH, body)
    if reply.status != 200 or not reply.moments:
        raise RuntimeError(f"{NAME}@{version}: {reply.status} {reply.body}")
    return reply.first_s


def _read_s(file: Path) -> float:
    started = time.perf_counter()
    file.read_bytes()
    return time.perf_counter() - started
