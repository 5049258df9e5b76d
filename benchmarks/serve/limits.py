"""What the endpoint does when a client goes, and when ten times too much comes."""

import asyncio
from collections.abc import Iterator

from benchmarks.bars.bar import Bar, at_least, at_most, holds, shown
from benchmarks.bars.smollm2 import Base, smollm2
from benchmarks.serve.endpoint import Endpoint, endpoint
from benchmarks.serve.generators import ours
from benchmarks.serve.load import (
    Caller,
    Reply,
    caller,
    closed,
    opened,
    per_second,
    percentile,
    text_of,
)
from benchmarks.serve.prompts import arrivals, prompts, stories

BATCH = 16
GONE = 12
STEPS = 1
OVER_HTTP = 2
"""Tokens of a neighbour's: the step that ran when the client went, and the one after it."""
LONG = 400
SHORT = 12
TIMES = 10
ROUNDS = 3
OVERLOAD_S = 10.0
CAPACITY_S = 10.0
SERVED, SHED_MS = 0.9, 100.0
PATH = "/v1/completions"


def measure_cancel() -> Iterator[Bar]:
    """In the engine, where steps can be counted, and over HTTP by what a neighbour is told."""
    base = smollm2()
    with ours(base.path, threads=1, adapters={}) as engine:
        steps = engine.tell("cancel", prompts=prompts(base, BATCH))["steps"]
    yield at_most("cancelled: slot free after, steps", [max(steps)], STEPS, "")
    with endpoint({}, f"batching.max_batch_size={BATCH}") as served:
        told = [asyncio.run(_gone(served, base)) for _ in range(3)]
    yield at_most("client gone: neighbour's tokens", told, OVER_HTTP, "")


async def _gone(served: Endpoint, base: Base) -> float:
    """Tokens that a stream gets between a client's going and the next in the queue's first."""
    texts = stories(base, BATCH + 1)
    async with caller(served.url, BATCH + 1) as call:
        counts = [0] * BATCH
        streaming = [asyncio.Event() for _ in range(BATCH)]
        leave = [asyncio.Event() for _ in range(BATCH)]

        async def stream(number: int) -> None:
            async with call.open_stream(PATH, _body(base, texts[number], LONG)) as events:
                async for event in events:
                    counts[number] += bool(text_of(event))
                    streaming[number].set()
                    if leave[number].is_set():
                        return

        async def first(number: int) -> None:
            async with call.open_stream(PATH, _body(base, texts[number], 4)) as events:
                async for event in events:
                    if text_of(event):
                        return

        running = [asyncio.ensure_future(stream(number)) for number in range(BATCH)]
        await asyncio.gather(*(event.wait() for event in streaming))
        waiting = asyncio.ensure_future(first(BATCH))
        await asyncio.sleep(0.5)
        if waiting.done():
            raise RuntimeError("the batch was not full")
        leave[0].set()
        await running[0]
        at = counts[1]
        await waiting
        told = counts[1] - at
        for event in leave[1:]:
            event.set()
        await asyncio.gather(*running)
    return float(told)


def measure_overload() -> Iterator[Bar]:
    """Capacity in a closed loop, then requests at ten times that rate whatever is answered.

    So several times, for a machine is not always as fast.
    """
    base = smollm2()
    queue = f"batching.max_queue={BATCH}"
    with endpoint({}, f"batching.max_batch_size={BATCH}", queue) as served:
        rounds = asyncio.run(_overloaded(served, base))
    capacities = [capacity for capacity, _ in rounds]
    replies = [reply for _, own in rounds for reply in own]
    shed = [reply for reply in replies if reply.status == 429]
    proper = sum(reply.status == 200 for reply in replies)
    proper += sum("retry-after" in reply.headers for reply in shed)
    times_ms = [1000 * reply.seconds for reply in shed]
    yield shown("capacity, requests/s", capacities, "", f"{len(replies)} sent, {len(shed)} shed")
    yield holds("overload: 200, or 429 with Retry-After", proper, len(replies), "requests")
    yield at_least(
        "overload of 10: served, of capacity",
        [
            per_second([reply for reply in own if reply.status == 200]) / capacity
            for capacity, own in rounds
        ],
        SERVED,
        "x",
    )
    yield at_most("  shed p99", [percentile(times_ms, 0.99)], SHED_MS, " ms")


async def _overloaded(served: Endpoint, base: Base) -> list[tuple[float, list[Reply]]]:
    """Of each round the capacity, and what came back of ten times as many requests."""
    texts = stories(base, BATCH)

    def sender(call: Caller):
        return lambda number: call.post(PATH, _body(base, texts[number % BATCH], SHORT))

    rounds: list[tuple[float, list[Reply]]] = []
    for _ in range(ROUNDS):
        async with caller(served.url, BATCH) as call:
            await closed(sender(call), BATCH, 2.0)
            capacity = per_second(await closed(sender(call), BATCH, CAPACITY_S))
        count = round(TIMES * capacity * OVERLOAD_S)
        async with caller(served.url, count) as call:
            coming = arrivals(count, TIMES * capacity, seed=0)
            rounds.append((capacity, await opened(sender(call), coming)))
    return rounds


def _body(base: Base, prompt: list[int], tokens: int) -> dict[str, object]:
    return {
        "model": base.local.name,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
    }
