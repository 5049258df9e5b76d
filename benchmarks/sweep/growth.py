"""Time of 1, 2, 4 and 8 fused trials on one worker, and of fused trials against one by one."""

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_least, at_most, shown
from benchmarks.bars.fresh import REPOSITORY
from benchmarks.bars.sandbox import own_environment
from benchmarks.bars.smollm2 import smollm2
from benchmarks.bars.spoken import child
from benchmarks.sweep.products import Step

TOKENS = 64
MOST = {2: 1.5, 4: 2.6, 8: 4.5}
"""Time of so many trials over that of one."""
TRIALS = {32: 8, 64: 8, 128: 4, 256: 2, 512: 2}
"""By tokens a trial. A pass of the slot takes up to 1024 tokens: more trials than that go through
in turns, so that eight of 512 tokens would be four passes of what two are."""
LEAST = 0.98
ROUNDS = 3
PROGRAM_S = 900.0


def measure() -> Iterator[Bar]:
    """With one thread, then with two: OMP_NUM_THREADS of a process each."""
    base = smollm2()
    with tempfile.TemporaryDirectory(prefix="rlb-") as folder:
        rows = {
            tokens: chat_rows.write(Path(folder), str(tokens), [tokens], base.tokenizer)
            for tokens in TRIALS
        }
        for threads in (1, 2):
            seconds = _measured(threads, {tokens: str(row.tokens) for tokens, row in rows.items()})
            yield from _bars(threads, seconds)
            yield _floor(threads, Step.of(rows[TOKENS], 1), seconds["fused", 1, TOKENS])


Seconds = dict[tuple[str, int, int], list[float]]
"""By what was measured, trials, and tokens of each."""


def _measured(threads: int, rows: Mapping[int, str]) -> Seconds:
    told: dict[str, Any] = {
        "threads": threads,
        "rows": rows,
        "growth": [1, *MOST],
        "growth_tokens": TOKENS,
        "lengths": TRIALS,
        "rounds": ROUNDS,
    }
    command = (sys.executable, "-m", "benchmarks.sweep.core_growth", json.dumps(told))
    environment = own_environment() | {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    found: Seconds = {}
    with child(command, REPOSITORY, environment, PROGRAM_S) as running:
        for _, line in running.heard():
            if "seconds" in line:
                key = (str(line["what"]), int(line["trials"]), int(line["tokens"]))
                found.setdefault(key, []).append(float(line["seconds"]))
        if running.process.wait() != 0:
            raise running.fault("the measurement crashed")
    return found


def _floor(threads: int, step: Step, one: Sequence[float]) -> Bar:
    most = max(MOST)
    products = step.pass_seconds(most, threads=threads)
    return shown(
        f"products of the base of {most} over 1, {_on(threads)}",
        [products / seconds for seconds in one],
        "x",
        f"{products:.2f} s, which fusing does not save: with all else at no cost {most} trials "
        "would take so many times one",
    )


def _bars(threads: int, seconds: Seconds) -> Iterator[Bar]:
    on = _on(threads)
    one = seconds["fused", 1, TOKENS]
    for trials, most in MOST.items():
        # The rounds of growth come first, those of the lengths may be of as many trials.
        many = seconds["fused", trials, TOKENS][:ROUNDS]
        yield at_most(
            f"time of {trials} trials over 1, {on}",
            [b / a for a, b in zip(one, many, strict=True)],
            most,
            "x",
            f"{TOKENS} tokens a trial, one alone {statistics.median(one):.3f} s a step",
        )
    for tokens, trials in TRIALS.items():
        fused = seconds["fused", trials, tokens][-ROUNDS:]
        alone = seconds["alone", trials, tokens]
        yield at_least(
            f"fused over alone, {tokens} tokens, {on}",
            [b / a for a, b in zip(fused, alone, strict=True)],
            LEAST,
            "x",
            f"{trials} trials: {statistics.median(fused):.2f} s against "
            f"{statistics.median(alone):.2f} s one by one",
        )


def _on(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"
