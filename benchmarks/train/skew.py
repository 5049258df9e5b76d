"""Useful tokens a second when one row is up to 8 times as long as the mean, at equal tokens."""

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.bars import chat_rows, peer
from benchmarks.bars.bar import Bar, at_least, shown
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import Base, smollm2
from benchmarks.train.job import run_job

RATIOS = (1, 8)
ROWS, MEAN = 16, 64
"""Of a step: 1,024 tokens, whatever the ratio of the longest row to the mean."""
PAIRS = 3
THREADS = 2
STEPS = 6


def measure() -> Iterator[Bar]:
    """Ours at 1 and 8 in pairs; the peers once each."""
    base = smollm2()
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        data = {
            ratio: chat_rows.write(
                box.folder,
                f"skew-{ratio}",
                chat_rows.one_long_row(ratio, ROWS, MEAN),
                base.tokenizer,
            )
            for ratio in RATIOS
        }
        rates: dict[int, list[float]] = {ratio: [] for ratio in RATIOS}
        for _ in range(PAIRS):
            for ratio, found in rates.items():
                found.append(_ours(box, data[ratio]))
        box.raylora("cluster", "down").expect()
        even, uneven = rates.values()
        yield at_least(
            "kept from skew 1 to 8",
            [b / a for a, b in zip(even, uneven, strict=True)],
            0.85,
            "",
            _row({ratio: statistics.median(found) for ratio, found in rates.items()}),
        )
        for name, found in _peers(base, data).items():
            yield shown(
                f"  kept from skew 1 to 8, {name}",
                [found[RATIOS[-1]] / found[RATIOS[0]]],
                "",
                _row(found),
            )


def _ours(box: Sandbox, rows: ChatRows) -> float:
    """All rows of a file are one step."""
    return run_job(
        box,
        rows,
        "workers.num_workers=1",
        f"workers.cpus_per_worker={THREADS}",
        f"training.global_batch_size={ROWS}",
        f"training.micro_batch_size={ROWS}",
        f"training.max_steps={STEPS}",
        f"training.save_steps={STEPS}",
    ).rate


def _peers(base: Base, data: dict[int, ChatRows]) -> dict[str, dict[int, float]]:
    """Rates by ratio, the second of two steps: padded bf16 rows, and bf16 packed by TRL."""
    padded: dict[int, float] = {}
    packed: dict[int, float] = {}
    for ratio, rows in data.items():
        given = {"model": str(base.path), "tokens": str(rows.tokens), "dtype": "bf16"}
        padded[ratio] = _second("hf_trainer", **given, batch=ROWS)
        packed[ratio] = _second("trl_sft", **given, batch=1, pack=ROWS * MEAN)
    return {"HF padded bf16": padded, "TRL bf16 bfd": packed}


def _second(program: str, **settings: Any) -> float:
    return peer.run(program, threads=THREADS, steps=2, **settings)[1].rate


def _row(rates: dict[int, float]) -> str:
    return "tokens/s at " + ", ".join(f"{ratio}: {rate:.0f}" for ratio, rate in rates.items())
