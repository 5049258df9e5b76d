"""Ray Tune over thin trials: its schedulers decide, slots train."""

import logging
import os
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

from raylora.config.population_rules import interval
from raylora.config.sweep_spec import Scheduler, SweepSpec
from raylora.sweeps.ledger import Proposal
from raylora.sweeps.orders import TrialReport, TrialState
from raylora.sweeps.population import Population
from raylora.sweeps.proposer import Proposer
from raylora.sweeps.thin_trial import METRICS, PROPOSAL, STATE, STEP, ThinTrial
from raylora.sweeps.trial_actors import trials_in_driver

ENVIRONMENT = {
    # Trials that are made at a time; with a searcher Ray's own is one.
    "TUNE_MAX_PENDING_TRIALS_PG": "8",
    # The driver stays where the spec's files are relative to.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # A trial that a user stops before its first report has no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # The ledger and MLflow have what Tune's own loggers would write.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
"""Ray Tune reads these in the driver."""


class Watcher(Protocol):
    """Hears of trials in the driver."""

    def began(self, proposal: Proposal) -> None:
        """A trial is about to take its first step, or goes on after a pause; perhaps changed."""
        ...

    def reported(self, report: TrialReport) -> None:
        """A trial has reported."""
        ...

    def ended(self, name: str, error: str) -> None:
        """A trial is over: finished, stopped early, or failed with an error."""
        ...


def tune_trials(
    spec: SweepSpec,
    proposer: Proposer,
    mailbox: Any,
    watcher: Watcher,
    folder: Path,
) -> None:
    """Run a trial for each proposal, until there are none left.

    folder: Ray Tune keeps its state there.
    """
    os.environ.update(ENVIRONMENT)
    search = spec.sweep
    # A population takes no searcher: it has all of its trials from the start.
    fixed = proposer.all() if search.scheduler is Scheduler.PBT else None
    # It warns of the loggers that are off, and of each result that took half a second to record.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    trainable = tune.with_parameters(ThinTrial, mailbox=mailbox)
    tuner = tune.Tuner(
        # The slot has the CPUs, a trial only waits for it; Ray Tune wants it to ask for something.
        tune.with_resources(trainable, {"memory": 1}),
        param_space={PROPOSAL: tune.grid_search(fixed)} if fixed else None,
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode=search.mode.value,
            search_alg=None if fixed else proposer,
            num_samples=1 if fixed else -1,
            scheduler=_scheduler(spec),
            time_budget_s=search.budget_minutes and 60 * search.budget_minutes,
            reuse_actors=True,
            # Ray Tune's own name of the folder has all of a proposal in it.
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            callbacks=[_Callback(watcher)],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            # Slots have the checkpoints; a trial's own would be an empty folder.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with trials_in_driver():
        tuner.fit()


def _scheduler(spec: SweepSpec) -> TrialScheduler:
    search, most_steps = spec.sweep, spec.training.max_steps
    assert most_steps is not None, "sweep_rules wants it"
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
        case Scheduler.PBT:
            return Population(search.space, interval(spec.base, search), search.seed)


class _Callback(tune.Callback):
    """Tells the watcher in this project's words."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune keeps a copy, which nobody reads."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._watcher.began(trial.config[PROPOSAL])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._watcher.reported(
            TrialReport(
                trial.config[PROPOSAL].name,
                TrialState(result[STATE]),
                result[STEP],
                result[METRICS],
            )
        )

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        self._watcher.ended(trial.config[PROPOSAL].name, "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        said = (trial.error_msg or "").strip().splitlines()
        self._watcher.ended(trial.config[PROPOSAL].name, said[-1] if said else "it failed")
