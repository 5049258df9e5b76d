"""A sweep that is killed and resumed must end as one that nobody disturbed.

At half its driver is killed, and later everything: head, workers and driver. Four trials train at
a time, so that at half four are finished and four have begun. What a trial logs of a step holds
how fast it was: a step that is trained again leaves another line.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, holds
from benchmarks.bars.cluster_look import driver_pids
from benchmarks.bars.sandbox import Sandbox, kill, sandbox
from benchmarks.bars.smollm2 import smollm2
from benchmarks.sweep.grid import Grid, named
from benchmarks.sweep.job import (
    SweepJob,
    follow,
    ledger_events,
    metrics_files,
    resume_sweep,
    run_sweep,
    start_sweep,
)
from raylora.sweeps.ledger import BEGAN, ENDED

GRID = Grid((4, 8, 16, 32), (3e-4, 1e-3), steps=24, rows_a_step=2)
AT_ONCE = 4
SAVE_STEPS = 6
ROW = 32
"""Tokens: 64 a trial and step."""
HALF = len(GRID) * GRID.steps // 2
DRIVER_AT = HALF + AT_ONCE * (SAVE_STEPS + 2)
"""Steps of all trials: half of them and, for those that have begun, a checkpoint."""
CLUSTER_AT = DRIVER_AT + AT_ONCE * SAVE_STEPS
WAIT_S = 300.0

Lines = Mapping[str, list[str]]
"""By name of the trial: what it has logged of each step."""


@dataclass(frozen=True)
class Moment:
    """What a sweep has done so far."""

    lines: Lines
    ended: frozenset[str]
    """Trials that the ledger knows to be over."""


@dataclass(frozen=True)
class Disturbed:
    """A sweep that came to its end after all."""

    job: SweepJob
    kills: list[Moment]
    """As they were found then."""
    after: Lines
    ledger: Mapping[str, list[str]]
    """By event: the trials it is told of."""


def measure() -> Iterator[Bar]:
    """One sweep that nobody disturbs, one that is killed twice."""
    base = smollm2()
    with sandbox() as box:
        rows = chat_rows.write(box.folder, "killed", [ROW] * GRID.rows, base.tokenizer)
        spec = GRID.spec(
            rows.messages,
            save_steps=SAVE_STEPS,
            scheduler="none",
            at_once=AT_ONCE,
            report_steps=SAVE_STEPS,
        )
        box.raylora("cluster", "up").expect()
        calm = run_sweep(box, spec)
        found = _disturbed(box, start_sweep(box, spec))
    yield trials_finished(found)
    yield from not_again(found)
    yield _same_best(calm, found.job)


def trials_finished(found: Disturbed) -> Bar:
    """As many as asked for, each begun and ended once, finished, with every step once."""
    whole = [
        name
        for name, lines in found.after.items()
        if len(lines) == GRID.steps and found.job.trials[name].state == "finished"
    ]
    begun, ended = (found.ledger.get(event, []) for event in (BEGAN, ENDED))
    exact = len(found.job.trials) == len(found.after) == len(begun) == len(ended) == len(GRID)
    killed_at = " and ".join(str(_sum(at.lines)) for at in found.kills)
    return holds(
        "killed sweep: trials finished",
        len(whole) if exact else 0,
        len(GRID),
        "trials",
        f"driver, then the cluster killed at {killed_at} of {len(GRID) * GRID.steps} steps; "
        f"{len(found.job.trials)} trials listed, {len(begun)} begun and {len(ended)} ended once "
        "by the ledger",
    )


def not_again(found: Disturbed) -> Iterator[Bar]:
    """Lines of steps that were safe at a kill are as they were."""
    finished = same = begun = kept = 0
    for kill_at in found.kills:
        for name, lines in kill_at.lines.items():
            if name in kill_at.ended:
                finished += 1
                same += found.after[name] == lines
            else:
                # That of the last step may have been about to be saved.
                saved = (len(lines) - 1) // SAVE_STEPS * SAVE_STEPS
                begun += 1
                kept += found.after[name][:saved] == lines[:saved]
    yield holds("killed sweep: finished, not rerun", same, finished, "trials, over both kills")
    yield holds("killed sweep: from a checkpoint", kept, begun, "trials, over both kills")


def _disturbed(box: Sandbox, run_id: str) -> Disturbed:
    _until(lambda: _done(box, run_id) > 0, "the first step")
    job, pid = list(driver_pids(box).items())[-1]
    _until(lambda: _done(box, run_id) >= DRIVER_AT, f"{DRIVER_AT} steps")
    os.kill(pid, signal.SIGKILL)
    # The job's end is what its log ends with, and its workers end with it.
    box.raylora("jobs", "logs", "-f", "--raw", job, timeout_s=WAIT_S)
    kills = [_moment(box, run_id)]
    resume_sweep(box, run_id)
    _until(lambda: _done(box, run_id) >= CLUSTER_AT, f"{CLUSTER_AT} steps")
    kill(box.home)
    kills.append(_moment(box, run_id))
    box.raylora("cluster", "up").expect()
    ended = follow(box, ("sweeps", "resume", run_id))
    return Disturbed(ended, kills, _lines(box, run_id), ledger_events(box, run_id))


def _same_best(calm: SweepJob, killed: SweepJob) -> Bar:
    losses = [job.trials[job.best].metrics["loss"] for job in (calm, killed)]
    return holds(
        "killed sweep: best of the calm one",
        int(calm.best_settings == killed.best_settings),
        1,
        "sweep",
        f"{named(calm.best_settings)} and {named(killed.best_settings)}, losses "
        f"{losses[0]:.5f} and {losses[1]:.5f}",
    )


def _moment(box: Sandbox, run_id: str) -> Moment:
    return Moment(_lines(box, run_id), frozenset(ledger_events(box, run_id).get(ENDED, [])))


def _done(box: Sandbox, run_id: str) -> int:
    return _sum(_lines(box, run_id))


def _sum(lines: Lines) -> int:
    return sum(map(len, lines.values()))


def _lines(box: Sandbox, run_id: str) -> Lines:
    return {name: _whole_lines(file) for name, file in metrics_files(box, run_id).items()}


def _whole_lines(file: Path) -> list[str]:
    """A line that was being written when its process was killed is none."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.endswith("}")]


def _until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not reached():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {WAIT_S:.0f} s for {what}")
        time.sleep(0.2)
