"""Step time with the base in 4 bits against bf16, at 1,000 tokens a step and more."""

import statistics
from collections.abc import Iterator

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_most
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import smollm2
from benchmarks.train.job import run_job

PAIRS = 3
BATCH = 8
STEPS = 7


def measure() -> Iterator[Bar]:
    """Both in pairs, all rows of the file in every step, so that steps hold the same tokens."""
    base = smollm2()
    seconds: dict[str, list[float]] = {"none": [], "nf4": []}
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        lengths = chat_rows.skewed_lengths(BATCH)
        rows = chat_rows.write(box.folder, "nf4", lengths, base.tokenizer)
        for _ in range(PAIRS):
            for quantization, found in seconds.items():
                found.append(_step_seconds(box, rows, quantization))
    bf16, nf4 = seconds.values()
    yield at_most(
        "nf4 step over bf16 step",
        [a / b for a, b in zip(nf4, bf16, strict=True)],
        1.10,
        "x",
        f"{statistics.median(nf4):.2f} s against {statistics.median(bf16):.2f} s, "
        f"{sum(lengths)} tokens a step, one worker on one thread",
    )


def _step_seconds(box: Sandbox, rows: ChatRows, quantization: str) -> float:
    job = run_job(
        box,
        rows,
        f"model.quantization={quantization}",
        "workers.num_workers=1",
        f"training.global_batch_size={BATCH}",
        f"training.micro_batch_size={BATCH}",
        f"training.max_steps={STEPS}",
        f"training.save_steps={STEPS}",
    )
    return sum(rows.lengths) / job.rate
