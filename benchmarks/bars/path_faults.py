"""SIGKILL to a train worker at a random step, five times over."""

import json
import random
import sys
import time
from collections.abc import Iterator

from benchmarks.bars.bar import Bar, holds
from benchmarks.bars.footprint import processes
from benchmarks.bars.killing import kill_at, train_workers
from benchmarks.bars.sandbox import Sandbox, run, sandbox

KILLS = 5
STEPS = 16
OVERRIDES = (
    f"training.max_steps={STEPS}",
    "training.save_steps=4",
    "evaluation.max_rows=8",
    "name=kill-test",
)

RESOURCES = """
import os, time
from raylora.cluster import head
state = head.running()
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=state.token_path)
import ray
ray.init(address=state.gcs_address, log_to_driver=False, logging_level="error")
for _ in range(20):
    busy = ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)
    if busy == 0:
        break
    time.sleep(1)
print(busy)
"""


def measure() -> Iterator[Bar]:
    """Five short runs of the quickstart's job; in each one worker dies at a random step."""
    seed = int(time.time())
    dice = random.Random(seed)
    succeeded = restarted = 0
    killed_at: list[int] = []
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        idle = _busy_cpus(box)
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
        held = _busy_cpus(box) - idle
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


def _busy_cpus(box: Sandbox) -> float:
    """CPUs that are promised to somebody, as Ray sees it, once 20 s have passed at most."""
    done = run((sys.executable, "-c", RESOURCES), box.folder, box.environment, 120).expect()
    return float(done.stdout.splitlines()[-1])
