"""What the stored runs of a sweep tell: its search, and the trials with their states."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from raylora.config.sweep_spec import Mode
from raylora.tracking import sweep_tags as tags
from raylora.tracking.nearest import not_found
from raylora.tracking.params import value_of
from raylora.tracking.ranking import ranked
from raylora.tracking.run import RUN_ID_TAG, RunStatus
from raylora.tracking.run_facts import summary_of

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowEntity


class TrialStatus(StrEnum):
    """How a trial stands."""

    WAITING = "waiting"
    """For its turn to begin, or for its sweep to be resumed."""
    RUNNING = "running"
    FINISHED = "finished"
    """All of its steps are done."""
    STOPPED = "stopped"
    """Ended early, by the scheduler or a user."""
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether it will not train again."""
        return self in (TrialStatus.FINISHED, TrialStatus.STOPPED, TrialStatus.FAILED)


@dataclass(frozen=True)
class TrialRecord:
    """A trial as it was tracked."""

    name: str
    run_id: str
    mlflow_run_id: str
    state: TrialStatus
    settings: dict[str, Any]
    """Its value of each key in which any trial differs from the sweep's base."""
    step: int
    """Optimizer steps done at its last report."""
    metrics: dict[str, float]
    """The last value of each, without system metrics."""
    error: str
    """Why it failed; empty where it did not."""
    submit: str
    """The line `raylora submit ...` that trains the same; empty where none does."""
    copies: list[dict[str, Any]]
    """Of a population: from which trial, after which step and with which settings it went on."""
    mode: str
    """fused or isolated."""
    started: datetime
    ended: datetime | None
    duration_s: float
    """Until now where the trial is not over."""
    adapter_bytes: int | None
    """Size of its adapter; None where that is not known."""


@dataclass(frozen=True)
class SweepSummary:
    """One line of a list of sweeps."""

    run_id: str
    mlflow_run_id: str
    name: str
    experiment: str
    status: RunStatus
    """RUNNING also where the driver was killed with no time to say so."""
    started: datetime
    ended: datetime | None
    duration_s: float
    metric: str
    mode: Mode
    searcher: str
    scheduler: str
    trials: int
    """How many there are to be; clones are not counted."""
    states: dict[TrialStatus, int]
    """How many have begun, by state."""
    best_trial: str | None
    """The driver's choice at the end."""
    best_adapter: str | None
    """The version registered from it, such as name@7."""


@dataclass(frozen=True)
class SweepDetails:
    """A sweep with the trials that have begun, by name."""

    summary: SweepSummary
    trials: Sequence[TrialRecord]

    @property
    def ranked(self) -> list[TrialRecord]:
        """The trials, the best first."""
        return ranked(self.trials, self.summary.metric, self.summary.mode)

    def trial(self, name: str) -> TrialRecord:
        """One of the trials. Raises NotFound with the nearest names."""
        for trial in self.trials:
            if trial.name == name:
                return trial
        known = [trial.name for trial in self.trials]
        raise not_found("trial", name, known, where=f"in sweep {self.summary.run_id}")


def sweep_details(
    entity: "MlflowEntity", children: Sequence["MlflowEntity"], experiments: Mapping[str, str]
) -> SweepDetails:
    """A sweep from its run and those of its trials; experiments maps MLflow's ids to names."""
    run, found = summary_of(entity, experiments), entity.data.tags
    keys = dict.fromkeys(key for child in children for key in _changed(child))
    trials = sorted((_trial(child, keys, run.status) for child in children), key=_place)
    search = json.loads(found[tags.SWEEP])
    states = [trial.state for trial in trials]
    summary = SweepSummary(
        run_id=run.run_id,
        mlflow_run_id=run.mlflow_run_id,
        name=run.name,
        experiment=run.experiment,
        status=run.status,
        started=run.started,
        ended=run.ended,
        duration_s=run.duration_s,
        metric=search["metric"],
        mode=Mode(search["mode"]),
        searcher=search["searcher"],
        scheduler=search["scheduler"],
        trials=search["trials"],
        states={state: states.count(state) for state in TrialStatus if state in states},
        best_trial=found.get(tags.BEST_TRIAL),
        # Empty in sweeps of earlier versions of which nothing was registered.
        best_adapter=found.get(tags.BEST_ADAPTER) or None,
    )
    return SweepDetails(summary, trials)


def _changed(entity: "MlflowEntity") -> dict[str, Any]:
    return json.loads(entity.data.tags.get(tags.SETTINGS, "{}"))


def _trial(entity: "MlflowEntity", keys: Iterable[str], sweep: RunStatus) -> TrialRecord:
    # The experiment's name is the sweep's, so it is not asked for.
    run, found = summary_of(entity, {}), entity.data.tags
    state = _state(found.get(tags.STATE, TrialStatus.RUNNING), run.status, sweep)
    size = found.get(tags.ADAPTER_BYTES)
    # A trial with the base's own value does not differ in it; its parameters have that value.
    everything = {k: value_of(v) for k, v in entity.data.params.items()} | _changed(entity)
    failed = state is TrialStatus.FAILED
    return TrialRecord(
        name=found[tags.TRIAL],
        run_id=found.get(RUN_ID_TAG, run.mlflow_run_id),
        mlflow_run_id=run.mlflow_run_id,
        state=state,
        settings={key: everything[key] for key in keys if key in everything},
        step=int(found.get(tags.STEP, 0)),
        metrics=run.metrics,
        # A trial that failed and was begun again still has the tag.
        error=(found.get(tags.ERROR) or "it left no reason") if failed else "",
        submit=found.get(tags.SUBMIT, ""),
        copies=json.loads(found.get(tags.COPIES, "[]")),
        mode=found.get(tags.MODE, ""),
        started=run.started,
        ended=run.ended,
        duration_s=run.duration_s,
        adapter_bytes=None if size is None else int(size),
    )


def _place(trial: TrialRecord) -> tuple[int, str]:
    """t100 comes after t99."""
    return len(trial.name), trial.name


def _state(stored: str, run: RunStatus, sweep: RunStatus) -> TrialStatus:
    """A driver that is stopped kills the runs of its trials, and leaves their states for later."""
    state = TrialStatus(stored)
    if state.is_over:
        return state
    match run:
        case RunStatus.FINISHED:
            return TrialStatus.FINISHED
        case RunStatus.FAILED:
            return TrialStatus.FAILED
        case _:
            over = run.terminal or sweep.terminal
            return TrialStatus.WAITING if over else state
