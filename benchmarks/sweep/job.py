"""A sweep through `raylora sweep`, as a user types it, and what its trials came to."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bars.sandbox import Sandbox
from benchmarks.bars.spoken import child
from benchmarks.sweep.grid import EXPERIMENT
from raylora.config.places import run_dir
from raylora.jobs.run_log import METRICS
from raylora.sweeps.ledger import LEDGER

SWEEP_S = 1200.0


@dataclass(frozen=True)
class Trial:
    """One trial as `raylora trials list` shows it."""

    name: str
    state: str
    step: int
    metrics: dict[str, float]
    settings: dict[str, Any]


@dataclass(frozen=True)
class SweepJob:
    """A sweep that has succeeded."""

    run_id: str
    seconds: float
    """From the command to its end."""
    best: str
    """Name of the trial that was chosen."""
    trials: dict[str, Trial]
    """By name."""

    @property
    def best_settings(self) -> dict[str, Any]:
        """What the chosen trial differs in from the others."""
        return self.trials[self.best].settings


def run_sweep(box: Sandbox, spec: Mapping[str, Any]) -> SweepJob:
    """Start a sweep and follow it to its end. Raises RuntimeError where it fails."""
    return follow(box, ("sweep", str(_written(box, spec))))


def follow(box: Sandbox, arguments: tuple[str, ...]) -> SweepJob:
    """A command that follows a sweep to its end."""
    command = (str(Path(sys.executable).with_name("raylora")), *arguments, "--output", "json")
    ended: dict[str, Any] = {}
    seconds = 0.0
    with child(command, box.folder, box.environment, SWEEP_S) as running:
        for at, line in running.heard():
            if line.get("event") == "ended":
                seconds, ended = at, line
        if running.process.wait() != 0 or not ended:
            raise running.fault(f"raylora {' '.join(arguments)}")
    run_id = str(ended["run_id"])
    best = Path(str(ended["adapter_dir"])).parents[1].name.removeprefix(f"{run_id}-")
    return SweepJob(run_id, seconds, best, trials_of(box, run_id))


def start_sweep(box: Sandbox, spec: Mapping[str, Any]) -> str:
    """Start a sweep and leave it; its run id."""
    arguments = ("sweep", str(_written(box, spec)), "--detach", "--output", "json")
    return str(json.loads(box.raylora(*arguments).expect().stdout)["run_id"])


def resume_sweep(box: Sandbox, run_id: str) -> None:
    """Go on with a sweep whose job has ended, and leave it."""
    box.raylora("sweeps", "resume", run_id, "--detach", "--output", "json").expect()


def trials_of(box: Sandbox, run_id: str) -> dict[str, Trial]:
    """What `raylora trials list` says of a sweep, by name of the trial."""
    said = box.raylora("trials", "list", run_id, "--output", "json").expect().stdout
    return {
        str(row["name"]): Trial(
            str(row["name"]),
            str(row["state"]),
            int(row["step"]),
            dict(row["metrics"]),
            dict(row["settings"]),
        )
        for row in json.loads(said)
    }


def ledger_events(box: Sandbox, run_id: str) -> dict[str, list[str]]:
    """Names of trials by what the sweep's ledger says of them: began, reported, ended."""
    places = run_dir(box.folder / "outputs", EXPERIMENT, run_id)
    found: dict[str, list[str]] = {}
    for line in (places.metadata / LEDGER).read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        found.setdefault(str(event["event"]), []).append(str(event["name"]))
    return found


def metrics_files(box: Sandbox, run_id: str) -> dict[str, Path]:
    """By name of the trial: a line a step that it has trained."""
    runs = run_dir(box.folder / "outputs", EXPERIMENT, "x").root.parent
    return {
        folder.name.removeprefix(f"{run_id}-"): folder / "logs" / METRICS
        for folder in sorted(runs.glob(f"{run_id}-*"))
        if (folder / "logs" / METRICS).exists()
    }


def require_steps(job: SweepJob, trials: int, steps: int) -> None:
    """Raise RuntimeError unless so many trials have done so many steps each."""
    done = {trial.name: trial.step for trial in job.trials.values()}
    if len(done) != trials or any(step != steps for step in done.values()):
        raise RuntimeError(f"expected {trials} trials of {steps} steps, found {done}")


def _written(box: Sandbox, spec: Mapping[str, Any]) -> Path:
    file = box.folder / "sweep.yaml"
    file.write_text(json.dumps(spec, indent=2), encoding="utf-8")  # JSON is YAML
    return file
