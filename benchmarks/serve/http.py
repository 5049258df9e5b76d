"""What HTTP costs: the whole route with an engine that does nothing, then with the real one.

Ours and a stock Ray Serve deployment run at the same time, each on a Ray of its own, and are asked
in turns by the same client, which shares the two cores with them.
"""

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import yaml

from benchmarks.bars.bar import Bar, at_least, at_most, failed, holds, shown
from benchmarks.bars.cluster_look import cluster_environment
from benchmarks.bars.fresh import REPOSITORY
from benchmarks.bars.sandbox import own_environment, run, sandbox
from benchmarks.bars.smollm2 import Base, smollm2
from benchmarks.bars.spoken import child
from benchmarks.serve.endpoint import down_seconds, endpoint, free_port, registered
from benchmarks.serve.generators import Workload, ours
from benchmarks.serve.load import caller, closed, middle_ms, per_second
from benchmarks.serve.prompts import stories
from raylora.config.compose import load_serve

ROUNDS = 3
SECONDS = 5.0
CONNECTIONS = 16
FASTER, SHARE_OF_P50 = 5.0, 0.25
OF_ENGINE = 0.95
NEW_TOKENS = 48
DOWN_S = 15.0
PATH = "/v1/chat/completions"
START_S = 240.0

Down = Callable[[], tuple[float, list[str]]]


@dataclass(frozen=True)
class Pace:
    """One side in one round."""

    rate: float
    """Requests a second over all connections."""
    p50_ms: float
    """With one connection."""


def measure() -> Iterator[Bar]:
    """Without an engine against stock Serve, then sixteen streams against the engine alone."""
    base = smollm2()
    try:
        yield from _over_stock(base)
    except RuntimeError as error:
        yield failed("requests/s over stock Serve", f">= {FASTER:g}x", str(error))
    yield from _streams(base)


def _over_stock(base: Base) -> Iterator[Bar]:
    with _without_engine(base) as (url, key, down), _stock() as stock:
        rounds = [(_pace(url, key), _pace(stock, key)) for _ in range(ROUNDS)]
        seconds, left = down()
    rates = [(a.rate, b.rate) for a, b in rounds]
    middles = [(a.p50_ms, b.p50_ms) for a, b in rounds]
    yield at_least(
        "requests/s over stock Serve",
        [a / b for a, b in rates],
        FASTER,
        "x",
        f"16 connections: {_middle(rates, 0):.0f} and {_middle(rates, 1):.0f}",
    )
    yield at_most(
        "p50 of stock Serve's",
        [a / b for a, b in middles],
        SHARE_OF_P50,
        "x",
        f"1 connection: {_middle(middles, 0):.2f} and {_middle(middles, 1):.2f} ms",
    )
    yield at_most("serve down, seconds", [seconds], DOWN_S, " s")
    yield holds("  nothing of Serve left", int(not left), 1, "processes gone", "; ".join(left[:4]))


def _middle(pairs: list[tuple[float, float]], side: int) -> float:
    return statistics.median(pair[side] for pair in pairs)


def _pace(url: str, key: str) -> Pace:
    return asyncio.run(_asked(url, {"Authorization": f"Bearer {key}"}))


async def _asked(url: str, headers: Mapping[str, str]) -> Pace:
    body = {
        "model": "noop@champion",
        "messages": [{"role": "user", "content": "Dim the hall"}],
        "max_tokens": 1,
    }
    async with caller(url, CONNECTIONS, headers) as call:
        await closed(lambda _: call.post(PATH, body), CONNECTIONS, 1.0)
        many = await closed(lambda _: call.post(PATH, body), CONNECTIONS, SECONDS)
        one = await closed(lambda _: call.post(PATH, body), 1, SECONDS)
    wrong = [reply for reply in (*many, *one) if reply.status != 200]
    if wrong:
        raise RuntimeError(f"{len(wrong)} requests failed: {wrong[0].status} {wrong[0].body}")
    return Pace(per_second(many), middle_ms(one))


@contextmanager
def _without_engine(base: Base):
    """Our address, a key to it, and what stops it: seconds, and what is left."""
    with sandbox() as box:
        registered(box, base, {"noop": 1})
        port, keys = free_port(), box.folder / "keys.json"
        made = box.raylora("serve", "keys", "add", "bars", "--file", str(keys), "--output", "json")
        key: str = json.loads(made.expect().stdout)["secret"]
        box.raylora("cluster", "up").expect()
        own = [f"port={port}", f"name=bars-{box.folder.name}", f"keys={keys}"]
        spec = load_serve("quickstart", [*own, f"outputs={box.folder / 'outputs'}"]).spec
        file = box.folder / "noop.yaml"
        file.write_text(yaml.safe_dump(spec.model_dump(mode="json")), encoding="utf-8")
        command = (sys.executable, "-m", "benchmarks.serve.noop", str(file))
        run(command, REPOSITORY, cluster_environment(box), START_S).expect()
        yield f"http://127.0.0.1:{port}", key, lambda: down_seconds(box, DOWN_S)


@contextmanager
def _stock() -> Iterator[str]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="rlb-", ignore_cleanup_errors=True) as folder:
        settings = json.dumps({"port": port, "folder": folder})
        command = (sys.executable, "-m", "benchmarks.peers.serve_stock", settings)
        environment = own_environment() | {"RAY_USAGE_STATS_ENABLED": "0"}
        with child(command, REPOSITORY, environment, START_S) as running:
            if not any(line.get("ready") for _, line in running.heard()):
                raise running.fault("stock Ray Serve crashed")
            yield f"http://127.0.0.1:{port}"


def _streams(base: Base) -> Iterator[Bar]:
    """Sixteen streams over HTTP beside the same requests inside the engine, one thread each."""
    texts = stories(base, CONNECTIONS)
    rounds: list[tuple[float, float]] = []
    with endpoint({}, f"batching.max_batch_size={CONNECTIONS}") as served:
        asked = Workload([None] * CONNECTIONS, texts, [NEW_TOKENS] * CONNECTIONS)
        _, lengths = asyncio.run(_streamed(served.url, served.base, asked))
        # An answer that ends early over HTTP is as short inside.
        work = Workload([None] * CONNECTIONS, texts, lengths)
        with ours(base.path, threads=1, adapters={}) as engine:
            engine.rate(work)
            for _ in range(ROUNDS):
                over_http, _ = asyncio.run(_streamed(served.url, served.base, work))
                rounds.append((over_http, engine.rate(work)))
        seconds, left = down_seconds(served.box, DOWN_S)
    yield shown("tokens/s of 16 streams", [a for a, _ in rounds])
    yield at_least(
        "16 streams over HTTP, of in-engine",
        [a / b for a, b in rounds],
        OF_ENGINE,
        "x",
        f"in-engine {_middle(rounds, 1):.1f}",
    )
    yield at_most("serve down of a real engine, seconds", [seconds], DOWN_S, " s", ", ".join(left))


async def _streamed(url: str, base: Base, work: Workload) -> tuple[float, list[int]]:
    """Tokens a second over all streams, and the tokens of each, as usage counts them."""
    async with caller(url, CONNECTIONS) as call:
        sends = [
            call.stream(
                "/v1/completions",
                {
                    "model": base.local.name,
                    "prompt": prompt,
                    "max_tokens": wanted,
                    "temperature": 0,
                    "stream_options": {"include_usage": True},
                },
            )
            for prompt, wanted in zip(work.prompts, work.new_tokens, strict=True)
        ]
        replies = await asyncio.gather(*sends)
    for reply in replies:
        if reply.status != 200:
            raise RuntimeError(f"{reply.status}: {reply.body}")
    tokens = [int(reply.body[-1]["usage"]["completion_tokens"]) for reply in replies]
    begun = min(reply.sent for reply in replies)
    return sum(tokens) / (max(reply.ended for reply in replies) - begun), tokens
