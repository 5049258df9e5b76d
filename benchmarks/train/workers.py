"""1, 2 and 4 workers on two cores with default settings, and plain torchrun beside them."""

import statistics
from collections.abc import Iterator

from benchmarks.bars import chat_rows, peer
from benchmarks.bars.bar import Bar, at_least
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import smollm2
from benchmarks.train.job import run_job
from raylora.config.training_spec import TrainingSpec

PAIRS = 3
STEPS = 5
HALF_A_CPU = "workers.cpus_per_worker=0.5"
"""Where Ray is told to place four workers on two CPUs; each still has one thread."""


def measure() -> Iterator[Bar]:
    """A round is 1, 2 and 4 workers of ours, then two workers of torchrun."""
    base = smollm2()
    rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
    plain: list[peer.Step] = []
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        batch = TrainingSpec().global_batch_size
        lengths = chat_rows.skewed_lengths(batch * STEPS)
        rows = chat_rows.write(box.folder, "workers", lengths, base.tokenizer)
        given = {"model": str(base.path), "tokens": str(rows.tokens), "batch": batch // 2}
        for _ in range(PAIRS):
            for workers, found in rates.items():
                found.append(_ours(box, rows, workers))
            # transformers loads a model in the format it is stored in: bf16 here.
            steps = peer.run("hf_trainer", threads=None, workers=2, steps=2, dtype="auto", **given)
            plain.append(steps[-1])
    one, two, four = rates.values()
    row = ", ".join(f"{w}: {statistics.median(found):.0f}" for w, found in rates.items())
    yield at_least("2 workers over 1", _over(two, one), 1.7, "x", f"tokens/s at {row}")
    yield at_least("4 workers over 2", _over(four, two), 0.85, "x", f"placed with {HALF_A_CPU}")
    unset = [step.rate for step in plain]
    yield at_least(
        "2 workers over plain torchrun",
        _over(two, unset),
        3.0,
        "x",
        f"torchrun bf16 {statistics.median(unset):.0f} tokens/s with OMP_NUM_THREADS unset, "
        f"{plain[0].threads} thread each as torchrun then sets it",
    )


def _ours(box: Sandbox, rows: ChatRows, workers: int) -> float:
    return run_job(
        box,
        rows,
        f"workers.num_workers={workers}",
        f"training.max_steps={STEPS}",
        f"training.save_steps={STEPS}",
        *((HALF_A_CPU,) if workers > 2 else ()),
    ).rate


def _over(many: list[float], few: list[float]) -> list[float]:
    return [a / b for a, b in zip(many, few, strict=True)]
