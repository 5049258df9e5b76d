"""SIGKILL to a train worker at a random step, five times over."""

import json
import random
import time
from collections.abc import Iterator

from benchmarks.bars.bar import Bar, holds
from benchmarks.bars.cluster_look import busy_cpus
from benchmarks.bars.footprint import processes
from benchmarks.bars.killing import kill_at, train_workers
from benchmarks.bars.sandbox import Sandbox, sandbox

KILLS = 5
STEPS = 16
OVERRIDES = (
    f"training.max_steps={STEPS}",
    "training.save_steps=4",
    "evaluation.max_rows=8",
    "name=kill-test",
)


def measure() -> Iterator[Bar]:
    """Five short runs of the quickstart's job; in each one worker dies at a random step."""
    seed = int(time.time())
    dice = random.Random(seed)
    succeeded = restarted = 0
    killed_at: list[int] = []
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        idle = busy_cpus(box)
        for _ in range(KILLS):
            job = json.loads(
                box.raylora("submit", "quickstart", *OVERRIDES, "--detach", "--output", "json")
                .expect()
                .stdout
            )["job_id"]
            killed_at += kill_at(box, job, [dice.randint(2, STEPS - 1)])
            log = box.raylora("jobs", "logs", "-f", "--raw", job, timeout_s=600)
            succeeded += log.code == 0
            restarted += '"event": "restart"' in log.stdout
        runs = json.loads(box.raylora("runs", "list", "--output", "json").expect().stdout)
        finished = [run for run in runs if run["status"] == "FINISHED"]
        leaked = _leaked_workers(box)
        held = busy_cpus(box) - idle
        box.raylora("cluster", "down").expect()
        left = processes(box.home)
    detail = f"seed {seed}, killed at steps {killed_at}"
    yield holds("killed workers: jobs succeed", succeeded, KILLS, "succeed", detail)
    yield holds("killed workers: restarted", restarted, KILLS, "restart from a checkpoint")
    yield holds(
        "killed workers: one MLflow run each",
        int(len(runs) == len(finished) == KILLS) * KILLS,
        KILLS,
        "runs",
        f"{len(runs)} runs, {len(finished)} finished",
    )
    clean = int(not leaked) + int(held == 0) + int(not left)
    detail = f"worker processes {len(leaked)}, CPUs held {held:g}, after down {len(left)}"
    yield holds("killed workers: nothing leaks", clean, 3, "clean", detail)


def _leaked_workers(box: Sandbox) -> list[int]:
    """Train workers still alive 20 s after the last job."""
    deadline = time.monotonic() + 20
    while (left := train_workers(box)) and time.monotonic() < deadline:
        time.sleep(1)
    return left
