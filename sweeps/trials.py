"""The trials of a sweep as the driver knows them: their specs, folders and MLflow runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from raylora.cluster.events import NoticeEvent, emit
from raylora.config.places import run_dir
from raylora.config.sweep_rules import with_settings
from raylora.config.sweep_spec import SweepSpec
from raylora.jobs.assignment import Assignment
from raylora.jobs.record import open_record
from raylora.sweeps.orders import Begin
from raylora.tracking.runs import Run, RunStatus

PARENT_TAG = "mlflow.parentRunId"
"""By which MLflow shows a run below another."""
TRIAL_TAG = "raylora.trial"


@dataclass(frozen=True)
class Trial:
    """One setting, and where what becomes of it is kept."""

    assignment: Assignment
    run: Run


class Trials:
    """A Watcher that opens a run for each trial and lets the slot know what it trains."""

    def __init__(self, spec: SweepSpec, sweep: Assignment, mailbox: Any, slot: str) -> None:
        """`sweep` is the sweep's own assignment: its run is the parent of all."""
        self._spec = spec
        self._sweep = sweep
        self._mailbox = mailbox
        self._slot = slot
        self._trials: dict[str, Trial] = {}

    def __getitem__(self, name: str) -> Trial:
        return self._trials[name]

    def began(self, name: str, settings: Mapping[str, Any]) -> None:
        """See Watcher."""
        trial = self._open(name, settings)
        search = self._spec.sweep
        begin = Begin(name, trial.assignment, search.metric, search.report_steps)
        ray.get(self._mailbox.announce.remote(begin, self._slot))

    def reported(self, name: str, step: int, metrics: Mapping[str, float]) -> None:
        """See Watcher."""
        value = metrics.get(self._spec.sweep.metric)
        emit(NoticeEvent(f"trial {name}: {self._spec.sweep.metric} {value:.4f} at step {step}"))

    def ended(self, name: str, error: str) -> None:
        """See Watcher."""
        ray.get(self._mailbox.end.remote(name))
        status = RunStatus.FAILED if error else RunStatus.FINISHED
        self._trials[name].run.finish(status)

    def _open(self, name: str, settings: Mapping[str, Any]) -> Trial:
        sweep, base = self._sweep, self._spec.base
        spec = with_settings(base, settings)
        run_id = f"{sweep.run_id}-{name}"
        places = run_dir(spec.outputs, spec.tracking.experiment, run_id)
        for folder in places.working:
            folder.mkdir(parents=True, exist_ok=True)
        tags = {PARENT_TAG: sweep.mlflow_run_id, TRIAL_TAG: name}
        run = open_record(spec, run_id, sweep.tracking_uri, tags)
        assignment = Assignment(spec, run_id, run.mlflow_run_id, sweep.tracking_uri, places)
        trial = self._trials[name] = Trial(assignment, run)
        return trial
