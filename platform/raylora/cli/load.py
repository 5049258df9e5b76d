"""Load on an endpoint: an open loop of Poisson arrivals, or a closed one of busy clients."""

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx

from raylora.cli.endpoint_client import CONNECT_S, READ_S, bearer

WORDS = (
    *("lamp", "kitchen", "heat", "door", "garden", "seven", "open", "the", "quiet", "morning"),
    *("water", "set", "blue", "under", "train", "paper", "slow", "window", "north", "answer"),
)
OK = "ok"
UNFINISHED = "unfinished"
"""Still running when the time was up."""


@dataclass(frozen=True)
class Load:
    """What to send, how fast and for how long."""

    models: tuple[str, ...]
    """Asked in turn."""
    requests: int
    seconds: float
    """No request begins later than this, and none goes on for longer than as much again."""
    max_tokens: int
    rate: float | None = None
    """Arrivals a second, whether or not answers come; None for a closed loop."""
    concurrency: int = 1
    """Clients of a closed loop, each with one request at a time."""
    prompt: str | None = None
    prompt_words: int = 32
    """Of prompts that are made up, each another one: no cache of prefixes helps."""
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """One request."""

    model: str
    outcome: str
    """ok, an HTTP status, or what went wrong."""
    total_s: float
    """From when it was to be sent, so that waiting for a slow endpoint counts."""
    first_s: float | None = None
    token_s: float | None = None
    """For each token after the first."""
    tokens: int = 0


@dataclass(frozen=True)
class Measured:
    """All requests of a load."""

    load: Load
    samples: tuple[Sample, ...]
    wall_s: float


def measure(url: str, load: Load, *, warm_up: int = 0) -> Measured:
    """Send the load. Before it each model is asked `warm_up` times, which is not measured."""
    return asyncio.run(_measure(url, load, warm_up))


def prompts(load: Load) -> Iterator[tuple[str, str]]:
    """Yield a model and a prompt for each request."""
    draw = random.Random(load.seed)
    for number in range(load.requests):
        text = load.prompt or " ".join(draw.choices(WORDS, k=load.prompt_words))
        yield load.models[number % len(load.models)], text


async def _measure(url: str, load: Load, warm_up: int) -> Measured:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=1000)
    timeout = httpx.Timeout(READ_S, connect=CONNECT_S, pool=READ_S)
    async with httpx.AsyncClient(
        base_url=url, limits=limits, timeout=timeout, trust_env=False, headers=bearer()
    ) as http:
        for model in load.models * warm_up:
            await _ask(http, load, model, "warm up", time.monotonic())
        started = time.monotonic()
        asked = list(prompts(load))
        run = _closed if load.rate is None else _open
        samples = await run(http, load, asked, started)
        return Measured(load, tuple(samples), time.monotonic() - started)


async def _open(
    http: httpx.AsyncClient, load: Load, asked: Sequence[tuple[str, str]], started: float
) -> list[Sample]:
    """Begin requests at the times of a Poisson process, however many are running."""
    assert load.rate is not None
    draw = random.Random(load.seed)
    running: list[asyncio.Task[Sample]] = []
    due = started
    for model, text in asked:
        due += draw.expovariate(load.rate)
        if due - started > load.seconds:
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        running.append(asyncio.create_task(_bounded(http, load, model, text, due, started)))
    return list(await asyncio.gather(*running))


async def _closed(
    http: httpx.AsyncClient, load: Load, asked: Sequence[tuple[str, str]], started: float
) -> list[Sample]:
    """Each client sends its next request when it has the answer to its last."""
    left = iter(asked)
    samples: list[Sample] = []

    async def client() -> None:
        for model, text in left:
            now = time.monotonic()
            if now - started > load.seconds:
                return
            samples.append(await _bounded(http, load, model, text, now, started))

    await asyncio.gather(*(client() for _ in range(load.concurrency)))
    return samples


async def _bounded(
    http: httpx.AsyncClient, load: Load, model: str, text: str, due: float, started: float
) -> Sample:
    try:
        async with asyncio.timeout(started + 2 * load.seconds - time.monotonic()):
            return await _ask(http, load, model, text, due)
    except TimeoutError:
        return Sample(model, UNFINISHED, time.monotonic() - due)


async def _ask(http: httpx.AsyncClient, load: Load, model: str, text: str, due: float) -> Sample:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": load.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    first: float | None = None
    last, tokens, ended = due, 0, False
    try:
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            if not response.is_success:
                await response.aread()
                return Sample(model, str(response.status_code), time.monotonic() - due)
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    ended = True
                elif line.startswith("data: "):
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        return Sample(model, "error event", time.monotonic() - due)
                    if any(choice["delta"].get("content") for choice in chunk["choices"]):
                        last = time.monotonic()
                        first = first or last
                    if chunk.get("usage"):
                        tokens = chunk["usage"]["completion_tokens"]
    except httpx.HTTPError as error:
        return Sample(model, type(error).__name__, time.monotonic() - due)
    if not ended:
        return Sample(model, "broken off", time.monotonic() - due)
    return Sample(
        model,
        OK,
        time.monotonic() - due,
        None if first is None else first - due,
        (last - first) / (tokens - 1) if first is not None and tokens > 1 else None,
        tokens,
    )
