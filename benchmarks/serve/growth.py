"""What more adapters cost: in one batch, and beside the batch."""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.bars.bar import Bar, at_least, at_most
from benchmarks.bars.smollm2 import Base, smollm2
from benchmarks.serve.adapter_files import many, write_adapters
from benchmarks.serve.generation import ROUNDS, THREADS, beside_base, in_turns
from benchmarks.serve.generators import Generator, Workload, ours
from benchmarks.serve.prompts import prompts

ROWS = 64
NEW_TOKENS = 24
SHARES = {8: 0.85, 32: 0.75, 64: 0.55}
"""Distinct adapters in the batch, and what is to stay of the base's rate."""
HOT = 16
REGISTERED = (16, 64, 256, 1000)
FLAT = 0.95
REGISTER_S = 0.040
COLD_S = 0.150
COLD_TRIES = 12
MAX_BYTES = 1_500_000_000
"""Budget of the bank: 76 adapters in fp32, twice as many in bf16."""


def measure() -> Iterator[Bar]:
    """Distinct adapters in a batch on each number of threads, then those that are not in it."""
    base = smollm2()
    with tempfile.TemporaryDirectory(prefix="rlb-") as name:
        folder = Path(name)
        adapters = write_adapters(folder, base.local, ROWS)
        for threads in THREADS:
            with ours(base.path, threads=threads, adapters=adapters, batch=ROWS) as engine:
                yield from _distinct(engine, base, list(adapters), threads)
        paths = list(adapters.values())
        yield from _registered(base, folder, paths)


def _distinct(engine: Generator, base: Base, keys: Sequence[str], threads: int) -> Iterator[Bar]:
    work = Workload(keys, prompts(base, ROWS), [NEW_TOKENS] * ROWS)
    for distinct, target in SHARES.items():
        own = [keys[row % distinct] for row in range(ROWS)]
        cost = beside_base(engine, own, work, ROUNDS)
        yield cost.bar(f"{distinct} of 64 distinct, {threads} thread{'s' * (threads > 1)}", target)


def _registered(base: Base, folder: Path, adapters: Sequence[Path]) -> Iterator[Bar]:
    """A hot set among more and more others, the cost of one more, and of one that is cold."""
    known = many(folder / "many", adapters, max(REGISTERED))
    hot = list(known)[:HOT]
    work = Workload(hot, prompts(base, HOT), [NEW_TOKENS] * HOT)
    rates: dict[int, list[float]] = {}
    shares: dict[int, list[float]] = {}
    first = {key: known[key] for key in hot}
    costs_ms: dict[int, float] = {}
    with ours(base.path, threads=1, adapters=first, max_bytes=MAX_BYTES) as engine:
        count = HOT
        for wanted in REGISTERED:
            more = [
                engine.tell("register", key=key, path=str(known[key]))["seconds"]
                for key in list(known)[count:wanted]
            ]
            if more:
                costs_ms[wanted] = 1000 * statistics.median(more)
            count = wanted
            engine.tell("load", keys=hot)
            rounds = in_turns(engine, hot, work, ROUNDS)
            rates[wanted] = [adapted.rate for adapted, _ in rounds]
            # Shown beside it: minutes pass between these, in which a machine may slow down.
            shares[wanted] = [adapted.rate / plain.rate for adapted, plain in rounds]
        held = engine.tell("memory")
        cold = list(_cold(engine, list(known), base))
    yield at_least(
        "hot set of 16, 1,000 known over 16",
        [a / b for a, b in zip(rates[REGISTERED[-1]], rates[HOT], strict=True)],
        FLAT,
        "x",
        ", ".join(
            f"{n}: {statistics.median(r):.0f}/s, {statistics.median(shares[n]):.2f} of base"
            for n, r in rates.items()
        ),
    )
    yield at_most(
        "  adapters in memory, of the budget",
        [held["adapter_bytes"] / held["budget_bytes"]],
        1.0,
        "",
        f"{held['adapters']} of 1,000; process {held['resident_bytes'] / 1e9:.1f} GB",
    )
    yield at_most(
        "registering one",
        list(costs_ms.values()),
        1000 * REGISTER_S,
        " ms",
        ", ".join(f"up to {n}: {cost:.1f}" for n, cost in costs_ms.items()),
    )
    yield at_most("cold adapter's first token, later by", cold, 1000 * COLD_S, " ms")


def _cold(engine: Generator, keys: Sequence[str], base: Base) -> Iterator[float]:
    """Milliseconds that the first token comes later through an adapter that is on disk only."""
    text = prompts(base, 1)[0]
    for key in keys[HOT : HOT + COLD_TRIES]:
        cold = engine.tell("first_token", key=key, prompt=text)
        warm = engine.tell("first_token", key=key, prompt=text)
        if cold["tier"] != "disk" or warm["tier"] == "disk":
            raise RuntimeError(f"{key} was in tiers {cold['tier']} and {warm['tier']}")
        yield 1000 * (cold["seconds"] - warm["seconds"])
