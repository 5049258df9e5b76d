"""From the command to the first optimizer step on a warm cluster, against Ray's stock pattern.

Both are one Ray Job with one TorchTrainer of two workers, typed as a command; the moment counts
in which the command's output tells of the first step.
"""

import json
import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_least, shown
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.cluster_look import cluster_environment
from benchmarks.bars.fresh import REPOSITORY
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import Base, smollm2
from benchmarks.bars.spoken import child
from benchmarks.train.job import run_job

PAIRS = 3
WORKERS = 2
ROWS = 8
JOB_S = 300.0
AIM = 2.5


def measure() -> Iterator[Bar]:
    """One job of each to warm up, then pairs."""
    base = smollm2()
    ours: list[dict[str, float]] = []
    stock: list[float] = []
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        rows = chat_rows.write(box.folder, "start", [chat_rows.SHORTEST] * ROWS, base.tokenizer)
        for _ in range(1 + PAIRS):
            ours.append(_ours(box, rows))
            stock.append(_stock(box, base, rows))
    seconds = [stages["step"] for stages in ours[1:]]
    yield shown("submit to first step, 2nd job on", seconds, " s", _stages(ours[1:]))
    yield at_least(
        "faster than ray job submit",
        [b / a for a, b in zip(seconds, stock[1:], strict=True)],
        1.5,
        "x",
        f"aim {AIM}x; stock {statistics.median(stock[1:]):.1f} s; first jobs "
        f"{ours[0]['step']:.1f} s and {stock[0]:.1f} s",
    )


def _ours(box: Sandbox, rows: ChatRows) -> dict[str, float]:
    return run_job(
        box,
        rows,
        f"workers.num_workers={WORKERS}",
        f"training.global_batch_size={ROWS}",
        "training.max_steps=1",
    ).stages


def _stock(box: Sandbox, base: Base, rows: ChatRows) -> float:
    """Seconds until the stock job's first step; the job is then left to end."""
    folder = box.folder / "stock"
    folder.mkdir(exist_ok=True)
    shutil.copy(REPOSITORY / "benchmarks/peers/ray_stock.py", folder)
    settings = {
        "model": str(base.path),
        "tokens": str(rows.tokens),
        "batch": ROWS // WORKERS,
        "workers": WORKERS,
        "folder": str(box.folder / "stock-results"),
    }
    ray = str(Path(sys.executable).with_name("ray"))
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    entrypoint = ("python", "ray_stock.py", "settings.json")
    command = (ray, "job", "submit", "--working-dir", str(folder), "--", *entrypoint)
    environment = cluster_environment(box)
    first: list[float] = []
    with child(command, box.folder, environment, JOB_S) as running:
        for seconds, line in running.heard():
            if line.get("event") == "first step":
                first.append(seconds)
        if running.process.wait() != 0 or not first:
            raise running.fault("the stock job failed")
    return first[0]


def _stages(jobs: list[dict[str, float]]) -> str:
    """Median second at which each stage began, in order."""
    last = jobs[-1]
    order = sorted((name for name in last if last[name] <= last["step"]), key=last.__getitem__)
    begins = {name: statistics.median(job[name] for job in jobs if name in job) for name in order}
    return "begins at " + ", ".join(f"{name} {at:.1f}" for name, at in begins.items())
