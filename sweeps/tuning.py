"""Ray Tune over thin trials: its schedulers decide, a slot trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from raylora.config.sweep_spec import Scheduler, SearchSpec
from raylora.sweeps.thin_trial import STEP, ThinTrial

TRIAL_BYTES = 200 * 1024**2
"""Resident memory of a thin trial's process."""
SETTINGS = "settings"
"""In a Tune trial's config: values by key of the spec."""


@dataclass(frozen=True)
class TrialResult:
    """What became of a trial in Ray Tune."""

    name: str
    settings: Mapping[str, Any]
    step: int
    """Optimizer steps of its last report."""
    metrics: Mapping[str, float]
    error: str = ""


class Watcher(Protocol):
    """Hears of trials in the driver."""

    def began(self, name: str, settings: Mapping[str, Any]) -> None:
        """A trial is about to take its first step."""
        ...

    def reported(self, name: str, step: int, metrics: Mapping[str, float]) -> None:
        """A trial has reported."""
        ...

    def ended(self, name: str, error: str) -> None:
        """A trial is over: finished, stopped early, or failed with an error."""
        ...


def tune_trials(
    search: SearchSpec,
    proposals: Sequence[Mapping[str, Any]],
    most_steps: int,
    mailbox: Any,
    watcher: Watcher,
    folder: Path,
) -> list[TrialResult]:
    """Run a trial for each proposal, at_once of them at a time; their last results.

    most_steps: optimizer steps of a whole trial. folder: Ray Tune keeps its state there.
    """
    trainable = tune.with_parameters(ThinTrial, mailbox=mailbox)
    tuner = tune.Tuner(
        # The slot has the CPUs, a trial only waits for it.
        tune.with_resources(trainable, {"memory": TRIAL_BYTES}),
        param_space={SETTINGS: tune.grid_search([dict(p) for p in proposals])},
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode=search.mode.value,
            scheduler=_scheduler(search, most_steps),
            max_concurrent_trials=search.at_once,
            time_budget_s=search.budget_minutes and 60 * search.budget_minutes,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            callbacks=[_Callback(watcher)],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    found: list[TrialResult] = []
    for result in tuner.fit():
        metrics: Mapping[str, Any] = result.metrics or {}
        found.append(
            TrialResult(
                name=str(metrics.get("trial_id", "")),
                settings=(result.config or {}).get(SETTINGS, {}),
                step=int(metrics.get(STEP, 0)),
                metrics={k: v for k, v in metrics.items() if isinstance(v, float)},
                error=str(result.error or ""),
            )
        )
    return found


def _scheduler(search: SearchSpec, most_steps: int) -> TrialScheduler:
    grace = min(search.grace_steps, most_steps)
    match search.scheduler:
        case Scheduler.NONE:
            return FIFOScheduler()
        case Scheduler.ASHA:
            return AsyncHyperBandScheduler(
                time_attr=STEP,
                max_t=most_steps,
                grace_period=grace,
                reduction_factor=search.reduction_factor,
            )
        case Scheduler.MEDIAN:
            return MedianStoppingRule(time_attr=STEP, grace_period=grace)
        case Scheduler.HYPERBAND:
            return HyperBandScheduler(
                time_attr=STEP, max_t=most_steps, reduction_factor=search.reduction_factor
            )


class _Callback(tune.Callback):
    """Tells the watcher in this project's words."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._watcher.began(trial.trial_id, trial.config[SETTINGS])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        metrics = {key: value for key, value in result.items() if isinstance(value, float)}
        self._watcher.reported(trial.trial_id, result[STEP], metrics)

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        self._watcher.ended(trial.trial_id, "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._watcher.ended(trial.trial_id, trial.error_msg or "it failed")
