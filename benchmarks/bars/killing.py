"""SIGKILL to a train worker of a job once it has done a step."""

import os
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.bars.footprint import processes
from benchmarks.bars.sandbox import Sandbox
from benchmarks.bars.spoken import Line, child

JOB_S = 1200.0


def kill_at(box: Sandbox, job: str, steps: Sequence[int]) -> list[int]:
    """Kill one worker after each of these steps, in order; the steps at which it was done.

    After a kill the next waits until the job has started its workers again. Returns once the last
    is killed. Raises RuntimeError where the job ends before that.
    """
    raylora = str(Path(sys.executable).with_name("raylora"))
    command = (raylora, "jobs", "logs", "-f", "--raw", job)
    killed: list[int] = []
    with child(command, box.folder, box.environment, JOB_S) as reader:
        lines = (line for _, line in reader.heard())
        for step in steps:
            killed.append(_kill_after(box, lines, step, restarts=len(killed)))
    return killed


def train_workers(box: Sandbox) -> list[int]:
    """Pids of the Ray Train workers that are alive."""
    return sorted(pid for pid, name in processes(box.home).items() if "TrainWorker" in name)


def _kill_after(box: Sandbox, lines: Iterator[Line], step: int, restarts: int) -> int:
    seen = 0
    for line in lines:
        if line.get("event") == "restart":
            seen = int(line["attempt"])
        elif line.get("event") == "step" and seen >= restarts and line["step"] >= step:
            workers = train_workers(box)
            if not workers:
                raise RuntimeError("found no train worker to kill")
            os.kill(random.Random(step).choice(workers), signal.SIGKILL)
            return int(line["step"])
    raise RuntimeError(f"the job ended before step {step}")
