"""Ray Tune's own ways through the same trials, as programs on the same running cluster.

Both are run by raylora's interpreter: workers of a cluster have the head's, with the same Ray,
torch, transformers and PEFT.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.bars.cluster_look import cluster_environment
from benchmarks.bars.fresh import REPOSITORY
from benchmarks.bars.sandbox import Sandbox
from benchmarks.bars.spoken import child
from raylora.config.sweep_spec import SweepSpec

PEER_S = 1800.0


@dataclass(frozen=True)
class TunedTrial:
    """What became of a trial."""

    settings: dict[str, Any]
    step: int
    loss: float


@dataclass(frozen=True)
class Tuned:
    """A run of a peer that has succeeded."""

    seconds: float
    """From the command to its end."""
    trials: Sequence[TunedTrial]

    @property
    def best(self) -> TunedTrial:
        """The lowest loss of those that went furthest."""
        return min(self.trials, key=lambda trial: (-trial.step, trial.loss))


def tune_reuse(
    box: Sandbox,
    spec: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    scheduler: Mapping[str, Any] | None = None,
) -> Tuned:
    """Tune with reuse_actors over raylora's own loop; `spec` is that of the sweep."""
    sweep = SweepSpec.model_validate(spec)
    return _run(
        box,
        "tune_reuse",
        {
            "spec": sweep.base.model_dump(mode="json"),
            "trials": trials,
            "report_steps": sweep.sweep.report_steps,
            "scheduler": scheduler,
        },
    )


def tune_torch_trainer(
    box: Sandbox, trials: Sequence[Mapping[str, Any]], **settings: Any
) -> Tuned:
    """The documented pattern: a TorchTrainer with transformers' Trainer for each trial."""
    return _run(box, "tune_torch_trainer", {"trials": trials, **settings})


def require(tuned: Tuned, trials: int, steps: int) -> None:
    """Raise RuntimeError unless so many trials have done so many steps each."""
    done = [trial.step for trial in tuned.trials]
    if len(done) != trials or any(step != steps for step in done):
        raise RuntimeError(f"expected {trials} trials of {steps} steps, the peer did {done}")


def _run(box: Sandbox, program: str, settings: Mapping[str, Any]) -> Tuned:
    folder = box.folder / program
    shutil.rmtree(folder, ignore_errors=True)  # Tune goes on with what it finds
    folder.mkdir()
    file = folder / "settings.json"
    file.write_text(json.dumps({**settings, "folder": str(folder)}), encoding="utf-8")
    command = (sys.executable, "-m", f"benchmarks.peers.{program}", str(file))
    found: list[TunedTrial] | None = None
    seconds = 0.0
    with child(command, REPOSITORY, cluster_environment(box), PEER_S) as running:
        for at, line in running.heard():
            if "trials" in line:
                seconds, found = at, [TunedTrial(**trial) for trial in line["trials"]]
        if running.process.wait() != 0 or found is None:
            raise running.fault(f"{program} crashed")
    return Tuned(seconds, found)
