"""Sweeps in the tracking store: list them, look into one, and how its trials learnt."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from raylora.tracking.failures import raylora_errors
from raylora.tracking.lookup import every_run, experiment_names, find_run, has
from raylora.tracking.nearest import not_found
from raylora.tracking.store import connect
from raylora.tracking.sweep_facts import SweepDetails, SweepSummary, TrialRecord, sweep_details
from raylora.tracking.sweep_tags import PARENT, SWEEP, TRIAL

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowEntity


class Point(NamedTuple):
    """A metric at a step."""

    step: int
    value: float


def list_sweeps(uri: str, *, experiment: str | None = None, limit: int) -> list[SweepSummary]:
    """Sweeps, newest first, of one experiment or of all. Raises NotFound, Unreachable."""
    client = connect(uri)
    with raylora_errors(uri):
        names = experiment_names(client)
        wanted = [key for key, name in names.items() if experiment in (None, name)]
        if experiment is not None and not wanted:
            raise not_found("experiment", experiment, names.values())
        sweeps = client.search_runs(
            wanted, has(SWEEP), max_results=limit, order_by=["attributes.start_time DESC"]
        )
        trials: defaultdict[str, list[MlflowEntity]] = defaultdict(list)
        if sweeps:
            # One query for all of them: no trial is older than its sweep.
            oldest = min(sweep.info.start_time for sweep in sweeps)
            for run in every_run(
                client, wanted, f"{has(TRIAL)} AND attributes.start_time >= {oldest}"
            ):
                trials[run.data.tags.get(PARENT, "")].append(run)
        return [sweep_details(sweep, trials[sweep.info.run_id], names).summary for sweep in sweeps]


def get_sweep(uri: str, run_id: str) -> SweepDetails:
    """One sweep, by raylora's run id or MLflow's, with its trials.

    Raises NotFound with the nearest ids, Unreachable, NotAuthorised.
    """
    client = connect(uri)
    with raylora_errors(uri):
        names = experiment_names(client)
        sweep = find_run(client, run_id, names, kind="sweep", tag=SWEEP)
        query = f"tags.`{PARENT}` = '{sweep.info.run_id}' AND {has(TRIAL)}"
        trials = list(every_run(client, [sweep.info.experiment_id], query))
        return sweep_details(sweep, trials, names)


def histories(uri: str, trials: Sequence[TrialRecord], metric: str) -> dict[str, list[Point]]:
    """A metric of each trial by step, under the trial's name; without points where it has none."""
    client = connect(uri)
    with raylora_errors(uri):
        return {
            trial.name: sorted(
                Point(point.step, point.value)
                for point in client.get_metric_history(trial.mlflow_run_id, metric)
            )
            for trial in trials
        }
