"""A hundred trials that ASHA ends: nothing of them is left in Ray, nor in the slot."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_least, holds
from benchmarks.bars.chat_rows import SHORTEST, ChatRows
from benchmarks.bars.cluster_look import held
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import smollm2
from benchmarks.sweep.core import Mode, Task, run_tasks
from benchmarks.sweep.grid import Grid
from benchmarks.sweep.job import run_sweep
from benchmarks.sweep.tiny_base import write_tiny_base
from raylora.config.sweep_rules import with_settings
from raylora.config.sweep_spec import SweepSpec

STOPS = 100
GRID = Grid(
    ranks=(1, 2, 3, 4, 5, 6, 7, 8),
    # The fastest first: against them ASHA ends most of those that come later.
    rates=tuple(1e-4 * 1.25**i for i in reversed(range(20))),
    steps=8,
    rows_a_step=2,
)
"""160 settings."""
ASHA: dict[str, Any] = {
    "scheduler": "asha",
    "report_steps": 2,
    "grace_steps": 2,
    "reduction_factor": 4,
}
AT_ONCE = 8


def measure() -> Iterator[Bar]:
    """A sweep of a tiny model through Ray, then a slot alone."""
    base = smollm2()
    with sandbox() as box:
        tiny = box.folder / "tiny"
        write_tiny_base(tiny, base.tokenizer)
        rows = chat_rows.write(box.folder, "stops", [SHORTEST] * GRID.rows, base.tokenizer)
        spec = _spec(rows, tiny)
        yield from _in_ray(box, spec)
        yield _in_the_slot(spec)


def _spec(rows: ChatRows, tiny: Path) -> dict[str, Any]:
    model = {"source": "path", "id": str(tiny), "name": "tiny"}
    return {**GRID.spec(rows.messages, at_once=AT_ONCE, **ASHA), "model": model}


def _few(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {**spec, "sweep": {**spec["sweep"], "trials": 2}}


def _in_ray(box: Sandbox, spec: Mapping[str, Any]) -> Iterator[Bar]:
    box.raylora("cluster", "up").expect()
    run_sweep(box, _few(spec))  # Ray Train's state actor comes with the first run, and stays
    before = held(box)
    job = run_sweep(box, spec)
    after = held(box)
    states = Counter(trial.state for trial in job.trials.values())
    said = ", ".join(f"{count} {state}" for state, count in states.most_common())
    yield at_least("trials that ASHA ended", [states["stopped"]], STOPS, "", said)
    leaked = {what: after[what] - before[what] for what in before}
    yield holds(
        "a hundred stops: Ray holds nothing",
        sum(count <= 0 for count in leaked.values()),
        len(leaked),
        "clean",
        ", ".join(f"{what} {count:g}" for what, count in leaked.items()),
    )


def _in_the_slot(spec: Mapping[str, Any]) -> Bar:
    """By orders in place of Tune, so that the slot can be looked into before it is closed."""
    base = SweepSpec.model_validate(spec).base
    specs = {
        f"t{number:03}": with_settings(base, settings)
        for number, settings in enumerate(GRID.settings()[:STOPS], 1)
    }
    with tempfile.TemporaryDirectory(prefix="rlb-") as folder:
        task = Task("stops", Mode.STOPPED, specs, Path(folder))
        left = run_tasks([task], threads=1)[task.name].left
    return holds(
        "a hundred stops: the slot is empty",
        int(left == 0) * STOPS,
        STOPS,
        "stops",
        f"{left} adapters and threads left, {STOPS} trials ended after their first step",
    )
