"""One fine-tuning job through `raylora submit`, as a user types it, and what it measured."""

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.sandbox import Sandbox
from benchmarks.bars.spoken import child

SPEC = """\
name: bars
data:
  validation: null
tracking:
  system_metrics: false
"""
"""Everything else is a default: SmolLM2, r=16 on all linear layers."""
UNSETTLED = 2
"""Steps dropped from a steady rate: the first allocates and warms caches up."""
JOB_S = 900.0


@dataclass(frozen=True)
class TrainedJob:
    """A job that has succeeded."""

    stages: dict[str, float]
    """Seconds from the command to the first word of each stage; `step` is the first step done."""
    steps: list[dict[str, Any]]
    """The lines of logs/metrics.jsonl."""
    adapter: Path

    @property
    def rate(self) -> float:
        """Useful tokens a second at steady state: the median step."""
        return statistics.median(self.each("tokens_per_second"))

    @property
    def losses(self) -> list[float]:
        """Of each step."""
        return [float(step["loss"]) for step in self.steps]

    def each(self, name: str) -> list[float]:
        """A number of every step after the first ones."""
        settled = [float(step[name]) for step in self.steps[UNSETTLED:]]
        if not settled:
            raise RuntimeError(f"{len(self.steps)} steps are too few to be steady")
        return settled


def run_job(box: Sandbox, rows: ChatRows | Path, *overrides: str) -> TrainedJob:
    """Submit, follow to the end, read the figures. Raises RuntimeError where the job fails."""
    spec = box.folder / "bars.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    source = rows.messages if isinstance(rows, ChatRows) else rows
    arguments = ("submit", str(spec), f"data.train={source}", *overrides, "--output", "json")
    command = (str(Path(sys.executable).with_name("raylora")), *arguments)
    stages: dict[str, float] = {}
    ended: dict[str, Any] = {}
    with child(command, box.folder, box.environment, JOB_S) as running:
        for seconds, line in running.heard():
            match line.get("event"):
                case "stage":
                    stages.setdefault(str(line["stage"]), seconds)
                case "step":
                    stages.setdefault("step", seconds)
                case "ended":
                    ended = line
                case _:
                    pass
        if running.process.wait() != 0 or not ended:
            raise running.fault(f"raylora {' '.join(arguments)}")
    adapter = Path(str(ended["adapter_dir"]))
    metrics = adapter.parents[1] / "logs/metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines()
    return TrainedJob(stages, [json.loads(line) for line in lines], adapter)
