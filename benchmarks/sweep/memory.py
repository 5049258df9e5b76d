"""Peak memory of a process that trains eight fused trials, over one with a single trial.

Both are the slot that a sweep has, in a process of its own without Ray. Trials that are not fused
are measured as two cores run them: two at a time, each in a process of its own.
"""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_most, shown
from benchmarks.bars.footprint import PeakMemory
from benchmarks.bars.smollm2 import smollm2
from benchmarks.sweep.core import Mode, Task, run_tasks
from raylora.config.train_spec import TrainSpec

RANKS = (4, 8, 16, 32)
TRIALS = 8
AT_ONCE = 2
ROUNDS = 3
STEPS = 4
TOKENS = 64
MOST = 2.5


def measure() -> Iterator[Bar]:
    """A round is one trial, eight fused, and two that are not."""
    base = smollm2()
    one: list[float] = []
    eight: list[float] = []
    apart: list[float] = []
    with tempfile.TemporaryDirectory(prefix="rlb-") as folder:
        rows = chat_rows.write(Path(folder), "memory", [TOKENS] * STEPS, base.tokenizer)
        for number in range(ROUNDS):
            place = Path(folder) / str(number)
            specs = {f"t{i + 1:02}": _spec(rows.messages, i) for i in range(TRIALS)}
            largest = {"t01": specs["t04"]}
            one.append(_peak(Task("one", Mode.FUSED, largest, place / "one")))
            eight.append(_peak(Task("eight", Mode.FUSED, specs, place / "eight")))
            apart.append(_peak_apart(specs, place))
    gigabytes = f"{statistics.median(eight):.2f} GB against {statistics.median(one):.2f} GB"
    yield at_most(
        "memory of eight fused trials over one",
        [many / single for many, single in zip(eight, one, strict=True)],
        MOST,
        "x",
        f"{gigabytes} resident, bf16, {TOKENS} tokens a trial; the one has the largest rank",
    )
    yield shown(
        f"isolated, {AT_ONCE} processes at once",
        apart,
        " GB",
        "sum of proportional set sizes, sampled each second; the other six come after them",
    )


def _spec(rows: Path, number: int) -> TrainSpec:
    rank = RANKS[number % len(RANKS)]
    return TrainSpec.model_validate(
        {
            "data": {"train": str(rows), "validation": None},
            "lora": {"r": rank, "lora_alpha": 2 * rank},
            "training": {
                "max_steps": STEPS,
                "save_steps": STEPS,
                "global_batch_size": 1,
                "micro_batch_size": 1,
            },
            "workers": {"num_workers": 1},
            "tracking": {"system_metrics": False},
        }
    )


def _peak(task: Task) -> float:
    return run_tasks([task], threads=1)[task.name].peak_bytes / 1e9


def _peak_apart(specs: dict[str, TrainSpec], place: Path) -> float:
    names = list(specs)[-AT_ONCE:]
    tasks = [
        Task(name, Mode.ALONE, {name: specs[name]}, place / f"alone-{name}") for name in names
    ]
    home = place / "home"
    with PeakMemory(home) as memory:
        run_tasks(tasks, threads=1, processes=AT_ONCE, home=home)
    return memory.peak_bytes / 1e9
