"""`raylora rerun`: one worker gives the adapter's bytes again, two give them within 1e-5."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bars.bar import Bar, at_most, holds
from benchmarks.bars.sandbox import Sandbox, sandbox

STEPS = 8
OVERRIDES = (
    f"training.max_steps={STEPS}",
    "training.save_steps=4",
    "evaluation.max_rows=16",
    "tracking.system_metrics=false",
)
JOB_S = 900.0
WITHIN = 1e-5


def measure() -> Iterator[Bar]:
    """SmolLM2 on the bundled rows, a few steps, each trained and trained again."""
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        for workers in (1, 2):
            report = _rerun(box, workers)
            name = f"rerun, {workers} worker{'s' * (workers > 1)}"
            yield holds(f"{name}: reproduced", int(report["reproduced"]), 1, "metrics and data")
            if workers == 1:
                yield holds(f"{name}: same bits", int(report["same_bits"]), 1, "adapter files")
            else:
                apart = [float(report["largest_difference"])]
                yield at_most(f"{name}: weights apart", apart, WITHIN)


def _rerun(box: Sandbox, workers: int) -> dict[str, Any]:
    """Train a version, train it again; what the second job found."""
    name = f"rerun-{workers}"
    given = (*OVERRIDES, f"workers.num_workers={workers}", "--name", name, "--output", "json")
    box.raylora("submit", "quickstart", *given, timeout_s=JOB_S).expect()
    again = box.raylora("rerun", f"{name}@1", "--output", "json", timeout_s=JOB_S)
    ended = json.loads(again.expect().stdout.splitlines()[-1])
    folder = Path(str(ended["adapter_dir"])).parents[1]
    return json.loads((folder / "metadata/rerun.json").read_text(encoding="utf-8"))
