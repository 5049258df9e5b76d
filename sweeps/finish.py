"""What becomes of the best trial: trained again where that is wanted, checked and registered."""

from dataclasses import replace

from raylora.cluster.events import ResultEvent, StageEvent, emit
from raylora.config.places import run_dir
from raylora.config.sweep_rules import with_settings
from raylora.config.sweep_spec import SearchSpec
from raylora.jobs.assessing import assess_on_cluster
from raylora.jobs.assignment import Assignment, make_folders
from raylora.jobs.record import open_record
from raylora.jobs.registering import register
from raylora.jobs.trainer import run_workers
from raylora.sweeps.orders import TrialReport
from raylora.sweeps.trials import KNOWN_SECONDS, Trial, Trials
from raylora.tracking import sweep_tags as tags
from raylora.tracking.run import Run, RunStatus


def finish(
    search: SearchSpec,
    sweep: Assignment,
    run: Run,
    trials: Trials,
    best: TrialReport,
    slots: int,
) -> ResultEvent:
    """Do what sweep.on_finish says; `run` is the sweep's, and keeps what was found.

    slots: groups of workers that trained at the same time, and are free now. The result is the
    sweep's, with the chosen trial's adapter.
    """
    run.log_metrics({f"best_{search.metric}": best.metrics[search.metric]}, best.step)
    run.set_tags({tags.BEST_TRIAL: best.name})
    wanted = search.on_finish
    chosen = trials.open(best.name)
    status = RunStatus.FAILED
    try:
        if wanted.refit:
            chosen.run.finish(RunStatus.FINISHED)
            chosen = _refit(sweep, trials, best.name, wanted.refit)
        result = _result(chosen)
        if wanted.register_best:
            result = _registered(chosen, wanted.alias, slots)
        status = RunStatus.FINISHED
    finally:
        chosen.run.finish(status)
    return replace(result, run_id=sweep.run_id)


def _refit(sweep: Assignment, trials: Trials, best: str, steps: int) -> Trial:
    """Train the best settings by themselves, for so many steps."""
    emit(StageEvent("train", f"the settings of {best} again, {steps} steps"))
    spec = with_settings(sweep.spec, {**trials.settings(best), "training.max_steps": steps})
    run_id = f"{sweep.run_id}-refit"
    places = run_dir(spec.outputs, spec.tracking.experiment, run_id)
    make_folders(places)
    run = open_record(spec, run_id, sweep.tracking_uri, parent=sweep.run_id)
    run.known_within(KNOWN_SECONDS)
    assignment = Assignment(spec, run_id, run.mlflow_run_id, sweep.tracking_uri, places)
    run_workers(assignment)
    return Trial(assignment, run)


def _result(chosen: Trial) -> ResultEvent:
    """Of an adapter that is not registered."""
    folder = str(chosen.assignment.places.adapter)
    return ResultEvent(chosen.run.run_id, chosen.run.mlflow_run_id, None, [], folder)


def _registered(chosen: Trial, alias: str | None, slots: int) -> ResultEvent:
    assessment = assess_on_cluster(chosen.assignment, slots)
    return register(chosen.assignment, chosen.run, assessment, alias, tags.BEST_ADAPTER)
