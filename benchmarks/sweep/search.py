"""ASHA over 16 settings: in the bank, where freed rows are refilled, against stock Ray Tune.

The peer is Tune's ASHA with reuse_actors over raylora's own loop. All trials have one seed, so
that at the same step they see the same rows. Where the two choose different settings, both are
trained again with other seeds: they are as good if they differ by less than seeds do.
"""

import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_most, holds, shown
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import smollm2
from benchmarks.sweep import peers
from benchmarks.sweep.core import Mode, Task, run_tasks
from benchmarks.sweep.grid import Grid, key_of, named
from benchmarks.sweep.job import SweepJob, run_sweep
from benchmarks.sweep.products import Step
from raylora.config.sweep_rules import with_settings
from raylora.config.sweep_spec import SweepSpec

ROUNDS = 3
GRID = Grid((4, 8, 16, 32), (1e-4, 3e-4, 1e-3, 3e-3), steps=80, rows_a_step=2)
"""From 5 steps on 16 trials halve four times, to one that goes to the end."""
AT_ONCE = 16
"""All settings: two slots of eight, in whose rungs ASHA compares with many from the start."""
ROW = 32
"""Tokens: 64 a trial and step."""
ASHA = {"grace_period": 5, "reduction_factor": 2}
MOST = 0.45
SEEDS = (1, 2, 3)
LAST_STEPS = 10
"""Whose mean loss compares two settings."""


def measure() -> Iterator[Bar]:
    """Rounds of ours and the peer; then a judgement where they disagree."""
    base = smollm2()
    pairs: list[tuple[SweepJob, peers.Tuned]] = []
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        rows = chat_rows.write(box.folder, "search", [ROW] * GRID.rows, base.tokenizer)
        spec = GRID.spec(
            rows.messages,
            scheduler="asha",
            at_once=AT_ONCE,
            report_steps=ASHA["grace_period"],
            grace_steps=ASHA["grace_period"],
            reduction_factor=ASHA["reduction_factor"],
        )
        for _ in range(ROUNDS):
            ours = _ours(box, spec)
            pairs.append((ours, peers.tune_reuse(box, spec, GRID.settings(), ASHA)))
        yield at_most(
            "ASHA: time over stock Tune's",
            [ours.seconds / peer.seconds for ours, peer in pairs],
            MOST,
            "x",
            f"{statistics.median(ours.seconds for ours, _ in pairs):.0f} s against "
            f"{statistics.median(peer.seconds for _, peer in pairs):.0f} s; steps of all trials "
            f"{_steps(ours.trials.values() for ours, _ in pairs)} against "
            f"{_steps(peer.trials for _, peer in pairs)}",
        )
        yield _same_winner(spec, [(o.best_settings, p.best.settings) for o, p in pairs])
    each = _products_seconds(rows)
    floors = [each * sum(trial.step for trial in ours.trials.values()) for ours, _ in pairs]
    yield shown(
        "ASHA: products of the frozen base, of the time",
        [floor / ours.seconds for floor, (ours, _) in zip(floors, pairs, strict=True)],
        "",
        "of the steps that were trained: with all else at no cost "
        f"{statistics.median(f / p.seconds for f, (_, p) in zip(floors, pairs, strict=True)):.2f} "
        "of stock Tune's time",
    )


def _products_seconds(rows: ChatRows) -> float:
    """Of a step of a trial, where every core has a slot of its own."""
    slots = os.cpu_count() or 1
    trials = AT_ONCE // slots
    step = Step.of(rows, GRID.rows_a_step)
    return step.pass_seconds(trials, at_once=slots) / trials / slots


def _ours(box: Sandbox, spec: Mapping[str, Any]) -> SweepJob:
    job = run_sweep(box, spec)
    if len(job.trials) != len(GRID):
        raise RuntimeError(f"expected {len(GRID)} trials, found {sorted(job.trials)}")
    return job


def _same_winner(
    spec: Mapping[str, Any], winners: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> Bar:
    """Counts the rounds in which both chose one setting, or two that seeds do not tell apart."""
    same, said = 0, list[str]()
    for ours, peer in winners:
        if key_of(ours) == key_of(peer):
            same += 1
            said.append(f"both {named(ours)}")
            continue
        apart, noise = _apart_and_noise(spec, ours, peer)
        same += apart <= noise
        said.append(f"{named(ours)} and {named(peer)}: means {apart:.4f} apart, seeds {noise:.4f}")
    return holds("ASHA: winner of stock Tune's", same, len(winners), "rounds", "; ".join(said))


def _apart_and_noise(
    spec: Mapping[str, Any], ours: Mapping[str, Any], peer: Mapping[str, Any]
) -> tuple[float, float]:
    """Difference of two settings' mean losses over seeds, and how far seeds of one are apart."""
    base = SweepSpec.model_validate(spec).base
    with tempfile.TemporaryDirectory(prefix="rlb-") as folder:
        tasks = [
            Task(
                name,
                Mode.ALONE,
                {
                    f"seed{seed}": with_settings(base, {**settings, "training.seed": seed})
                    for seed in SEEDS
                },
                Path(folder) / name,
            )
            for name, settings in (("ours", ours), ("peer", peer))
        ]
        run_tasks(tasks, threads=1, processes=2)
        a, b = (
            [statistics.mean(task.losses(trial)[-LAST_STEPS:]) for trial in task.specs]
            for task in tasks
        )
    return abs(statistics.mean(a) - statistics.mean(b)), max(max(a) - min(a), max(b) - min(b))


def _steps(rounds: Any) -> str:
    """Of all trials together, by round."""
    return "/".join(str(sum(trial.step for trial in trials)) for trials in rounds)
