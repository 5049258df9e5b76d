"""Eight trials of 4 ranks x 2 learning rates, from the command to its end on a running cluster.

A round is `raylora sweep`, then Tune with reuse_actors over raylora's own loop; the documented
pattern, which takes minutes, is run once. Everybody trains the same steps of the same rows. A
sweep does more than its peers: it also keeps adapters, MLflow runs and logs of all trials.
"""

import os
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_least, not_measured, shown
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.footprint import PeakMemory
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import smollm2
from benchmarks.sweep import peers
from benchmarks.sweep.grid import Grid, key_of
from benchmarks.sweep.job import SweepJob, require_steps, run_sweep
from benchmarks.sweep.products import Step
from raylora.config.model_spec import DType
from raylora.lora.devices import pick

ROUNDS = 3
GRID = Grid((4, 8, 16, 32), (3e-4, 1e-3), steps=24, rows_a_step=2)
WARM = replace(GRID, steps=2)
SHORT, LONG = 32, 64
"""Tokens of a row: 64 to 128 a trial and step."""
REPORT_STEPS = 10
OVER_REUSE, OVER_PATTERN = 2.0, 5.0


def measure() -> Iterator[Bar]:
    """One short run of both to warm up, then rounds, then the documented pattern."""
    base = smollm2()
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        rows = chat_rows.write(box.folder, "makespan", _lengths(), base.tokenizer)
        with PeakMemory(box.home) as memory:
            _ours(box, rows, WARM)
        _reuse(box, rows, WARM)
        ours: list[SweepJob] = []
        reuse: list[peers.Tuned] = []
        for _ in range(ROUNDS):
            ours.append(_ours(box, rows, GRID))
            reuse.append(_reuse(box, rows, GRID))
        seconds = [job.seconds for job in ours]
        median = statistics.median(seconds)
        said = f"{len(GRID)} trials of {GRID.steps} steps: {median:.0f} s against"
        yield at_least(
            "faster than Tune with reuse_actors",
            [b.seconds / a for a, b in zip(seconds, reuse, strict=True)],
            OVER_REUSE,
            "x",
            f"{said} {statistics.median(peer.seconds for peer in reuse):.0f} s; last losses "
            f"differ by {_losses_apart(ours[-1], reuse[-1]):.1%} at most",
        )
        pattern = peers.tune_torch_trainer(
            box,
            GRID.settings(),
            model=str(base.path),
            tokens=str(rows.tokens),
            # What ours computes in: bf16, in which the model is stored, takes hours where a
            # processor has no units for it.
            dtype=str(pick().dtype(DType.AUTO)).removeprefix("torch."),
            batch=GRID.rows_a_step,
            steps=GRID.steps,
            seed=0,
            at_once=os.cpu_count(),
        )
        peers.require(pattern, len(GRID), GRID.steps)
        yield at_least(
            "faster than Tune with TorchTrainer",
            [pattern.seconds / median],
            OVER_PATTERN,
            "x",
            f"{said} {pattern.seconds:.0f} s, all trials and steps, run once",
        )
        yield shown(
            "memory of a whole sweep",
            [memory.peak_bytes / 1e9],
            " GB",
            "of all processes, the cluster's own too: proportional set sizes, sampled each second",
        )
    floor = _products_seconds(rows)
    yield shown(
        "products of the frozen base, of a sweep",
        [floor / one for one in seconds],
        "",
        f"{floor:.0f} s, which fusing does not save: with all else at no cost a sweep would be "
        f"{statistics.median(peer.seconds for peer in reuse) / floor:.1f}x faster than Tune with "
        f"reuse_actors, {pattern.seconds / floor:.1f}x than with TorchTrainer",
    )
    if not torch.cuda.is_available():
        yield not_measured("makespan on a GPU", "this machine has none")


def _lengths() -> list[int]:
    return [SHORT + round((LONG - SHORT) * i / (GRID.rows - 1)) for i in range(GRID.rows)]


def _spec(rows: ChatRows, grid: Grid) -> dict[str, Any]:
    report_steps = min(REPORT_STEPS, grid.steps)
    return grid.spec(rows.messages, scheduler="none", report_steps=report_steps)


def _ours(box: Sandbox, rows: ChatRows, grid: Grid) -> SweepJob:
    job = run_sweep(box, _spec(rows, grid))
    require_steps(job, len(grid), grid.steps)
    return job


def _reuse(box: Sandbox, rows: ChatRows, grid: Grid) -> peers.Tuned:
    tuned = peers.tune_reuse(box, _spec(rows, grid), grid.settings())
    peers.require(tuned, len(grid), grid.steps)
    return tuned


def _products_seconds(rows: ChatRows) -> float:
    """Of all steps, where every core has a slot of its own."""
    slots = os.cpu_count() or 1
    step = Step.of(rows, GRID.rows_a_step)
    return GRID.steps * step.pass_seconds(len(GRID) // slots, at_once=slots)


def _losses_apart(job: SweepJob, tuned: peers.Tuned) -> float:
    """Of the last step, relative: both trained the same, up to the rounding of bf16."""
    ours = {key_of(trial.settings): trial.metrics["loss"] for trial in job.trials.values()}
    return max(abs(ours[key_of(peer.settings)] - peer.loss) / peer.loss for peer in tuned.trials)
