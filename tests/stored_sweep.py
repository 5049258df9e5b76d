"""A sweep in a tracking store, as a driver leaves it: eight trials over rank and learning rate."""

import shutil
from collections.abc import Mapping
from itertools import product
from pathlib import Path

from raylora.config.compose import load_sweep
from raylora.config.train_spec import TrackingSpec
from raylora.tracking import sweep_tags as tags
from raylora.tracking.location import DATABASE, tracking_uri
from raylora.tracking.run import Run, RunStatus
from raylora.tracking.runs import open_run
from raylora.tracking.sweep_facts import TrialStatus

SWEEP = "20260101-120000-5eeeee"
RANKS, RATES = (4, 8, 16, 32), (1e-4, 1e-3)
STEPS = 4
BEST = "t08"
"""The highest rank at the higher rate."""
ENDED_EARLY, FAILED = "t01", "t03"


def store_sweep(folder: Path, empty_store: Path, *, running: bool = False) -> str:
    """Write the sweep into a copy of an empty store in the folder; its URI.

    The loss depends on the rate much, on the rank a little. Where it is running, the best trial
    has not ended.
    """
    uri = tracking_uri(TrackingSpec(), str(folder))
    shutil.copy(empty_store, folder / DATABASE)
    search = load_sweep("quickstart-sweep").spec.sweep
    sweep = _open(uri, SWEEP, {tags.SWEEP: tags.search_facts(search, trials=8)})
    for number, (rate, rank) in enumerate(product(RATES, RANKS), 1):
        _trial(uri, sweep, f"t{number:02}", rank, rate, running=running)
    if not running:
        sweep.set_tags({tags.BEST_TRIAL: BEST, tags.BEST_ADAPTER: "home@1"})
        sweep.finish(RunStatus.FINISHED)
    return uri


def loss_at(step: int, rank: int, rate: float) -> float:
    """What a trial reports."""
    return 3.0 - (1.0 if rate == RATES[1] else 0.1) * step / 2 - 0.001 * rank


def _trial(uri: str, sweep: Run, name: str, rank: int, rate: float, *, running: bool) -> None:
    state, steps = TrialStatus.FINISHED, STEPS
    if name == ENDED_EARLY:
        state, steps = TrialStatus.STOPPED, STEPS - 1
    elif name == FAILED:
        state, steps = TrialStatus.FAILED, 1
    elif name == BEST and running:
        state = TrialStatus.RUNNING
    settings = {"lora.r": rank, "lora.lora_alpha": 2 * rank, "training.learning_rate": rate}
    run = _open(
        uri,
        f"{SWEEP}-{name}",
        {
            tags.PARENT: sweep.mlflow_run_id,
            tags.TRIAL: name,
            tags.STATE: state,
            tags.SETTINGS: settings,
            tags.STEP: steps,
            tags.SUBMIT: f"raylora submit quickstart lora.r={rank} training.learning_rate={rate}",
            tags.MODE: "fused",
            tags.ADAPTER_BYTES: 1000 * rank,
        }
        | ({tags.ERROR: "the loss is NaN"} if state is TrialStatus.FAILED else {}),
    )
    run.log_params(settings)
    for step in range(1, steps + 1):
        run.log_metrics({"loss": loss_at(step, rank, rate), "grad_norm": 1.0}, step)
    if state is TrialStatus.RUNNING:
        run.close()
    else:
        run.finish(RunStatus.FAILED if state is TrialStatus.FAILED else RunStatus.FINISHED)


def _open(uri: str, run_id: str, marks: Mapping[str, object]) -> Run:
    run = open_run(uri, "home", run_id, "home-requests", params={}, tags={})
    run.set_tags(marks)
    return run
