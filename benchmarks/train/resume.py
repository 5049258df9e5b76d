"""SIGKILL at random steps: the adapter must be that of the run that nobody disturbed."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_most, holds
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.killing import kill_at
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import smollm2
from benchmarks.train.job import SPEC, run_job

KILLS = 5
"""Of each killed run: two with one worker, one with two workers."""
STEPS = 26
SAVE_STEPS = 2
MARGIN = 4
"""Steps before the end in which nobody is killed: the line of a step takes a moment to be read."""
JOB_S = 900.0
WEIGHTS = "adapter_model.safetensors"


def measure() -> Iterator[Bar]:
    """One worker: bit for bit. Two workers: within 1e-5."""
    seed = int(time.time())
    dice = random.Random(seed)
    base = smollm2()
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        rows = chat_rows.write(
            box.folder, "resume", [chat_rows.SHORTEST] * 4 * STEPS, base.tokenizer
        )
        alone = run_job(box, rows, *_overrides(1)).adapter
        same, at = 0, list[int]()
        for _ in range(2):
            adapter, killed = _killed(box, rows, 1, dice)
            at += killed
            same += (adapter / WEIGHTS).read_bytes() == (alone / WEIGHTS).read_bytes()
        yield holds(
            "resume, 1 worker: bit for bit",
            same * KILLS,
            2 * KILLS,
            "kills",
            f"seed {seed}, killed after steps {at}",
        )
        pair = run_job(box, rows, *_overrides(2)).adapter
        adapter, at = _killed(box, rows, 2, dice)
        yield at_most(
            "resume, 2 workers: difference",
            [_difference(adapter, pair)],
            1e-5,
            "",
            f"largest, absolute; one of the two killed after steps {at}",
        )


def _killed(
    box: Sandbox, rows: ChatRows, workers: int, dice: random.Random
) -> tuple[Path, list[int]]:
    """A run that loses a worker KILLS times."""
    steps = sorted(dice.sample(range(1, STEPS - MARGIN), KILLS))
    spec = box.folder / "bars.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    arguments = ("submit", str(spec), f"data.train={rows.messages}", *_overrides(workers))
    done = box.raylora(*arguments, "--detach", "--output", "json").expect()
    job = json.loads(done.stdout)["job_id"]
    killed = kill_at(box, job, steps)
    log = box.raylora("jobs", "logs", "-f", "--raw", job, timeout_s=JOB_S).expect().stdout
    marker = log.index('{"event": "result"')
    result = json.JSONDecoder().raw_decode(log[marker:])[0]
    return Path(result["adapter_dir"]), killed


def _overrides(workers: int) -> tuple[str, ...]:
    return (
        f"workers.num_workers={workers}",
        f"workers.max_failures={2 * KILLS}",
        "training.deterministic=true",
        "training.global_batch_size=4",
        f"training.max_steps={STEPS}",
        f"training.save_steps={SAVE_STEPS}",
    )


def _difference(one: Path, other: Path) -> float:
    """Largest absolute difference of any weight."""
    a, b = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    if a.keys() != b.keys():
        raise RuntimeError(f"{one} and {other} hold different tensors")
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
