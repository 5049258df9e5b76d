"""ZeRO 0 to 3 on two workers: the loss curve of one worker with the same global batch, in fp32."""

from collections.abc import Iterator

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_most
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import smollm2
from benchmarks.train.job import run_job

STEPS = 6
STAGES = (0, 1, 2, 3)


def measure() -> Iterator[Bar]:
    """One line a stage: the largest relative difference of any step's loss."""
    base = smollm2()
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        lengths = chat_rows.skewed_lengths(16, seed=2)
        rows = chat_rows.write(box.folder, "zero", lengths, base.tokenizer)
        wanted = _curve(box, rows, "workers.num_workers=1", "workers.backend=torch")
        for stage in STAGES:
            found = _curve(
                box,
                rows,
                "workers.num_workers=2",
                "workers.backend=deepspeed",
                f"workers.zero_stage={stage}",
            )
            yield at_most(
                f"ZeRO {stage} curve, 2 workers against 1",
                [max(abs(a - b) / b for a, b in zip(found, wanted, strict=True))],
                1e-4,
                "",
                f"relative, over {STEPS} steps from {wanted[0]:.3f} to {wanted[-1]:.3f}",
            )


def _curve(box: Sandbox, rows: ChatRows, *overrides: str) -> list[float]:
    losses = run_job(
        box,
        rows,
        "model.dtype=fp32",
        "training.global_batch_size=4",
        "training.micro_batch_size=2",
        f"training.max_steps={STEPS}",
        f"training.save_steps={STEPS}",
        *overrides,
    ).losses
    if len(losses) != STEPS:
        raise RuntimeError(f"{len(losses)} of {STEPS} steps were reported")
    return losses
