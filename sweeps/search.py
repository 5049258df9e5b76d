"""The driver of a sweep: `python -m raylora.sweeps.search spec.yaml --run-id ID`.

read the data -> propose settings -> train all on one base -> check and register the best
"""

import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from raylora.cluster.events import ResultEvent, StageEvent, emit
from raylora.config.compose import read_resolved
from raylora.config.dotted import get
from raylora.config.places import run_dir
from raylora.config.schema import keys_of
from raylora.config.sweep_spec import FinishSpec, Searcher, SweepSpec
from raylora.config.train_spec import TrainSpec
from raylora.errors import JobFailed
from raylora.jobs.assessing import assess_on_cluster
from raylora.jobs.assignment import Assignment
from raylora.jobs.data.survey import survey
from raylora.jobs.driver import connect, drive
from raylora.jobs.record import recorded
from raylora.jobs.registering import register
from raylora.sweeps.mailbox import Mailbox
from raylora.sweeps.proposals import draw, grid, settings
from raylora.sweeps.ranking import ranked
from raylora.sweeps.slot_run import slot_running
from raylora.sweeps.trials import Trial, Trials
from raylora.sweeps.tuning import tune_trials
from raylora.tracking.location import tracking_uri
from raylora.tracking.promotion import promote
from raylora.tracking.registry import Registry

SLOT = "fused"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job."""
    return drive(
        "raylora.sweeps.search",
        lambda file, run_id: search(read_resolved(file, SweepSpec), run_id),
        argv,
    )


def search(spec: SweepSpec, run_id: str) -> ResultEvent:
    """Train the trials of a sweep and register the best. The cluster is the one Ray finds."""
    base = spec.base.model_copy(update={"outputs": str(Path(spec.outputs).absolute())})
    spec = spec.model_copy(update={"outputs": base.outputs})
    places = run_dir(base.outputs, base.tracking.experiment, run_id)
    for folder in places.working:
        folder.mkdir(parents=True, exist_ok=True)
    data = survey(base.data, Path.cwd())
    connect()
    uri = tracking_uri(base.tracking, base.outputs)
    with recorded(base, run_id, uri, data) as run:
        sweep = Assignment(base, run_id, run.mlflow_run_id, uri, places)
        mailbox: Any = ray.remote(Mailbox).options(num_cpus=0, max_concurrency=1000).remote()
        trials = Trials(spec, sweep, mailbox, SLOT)
        emit(StageEvent("trials"))
        with slot_running(sweep, mailbox, SLOT):
            results = tune_trials(
                spec.sweep, propose(spec), _steps(base), mailbox, trials, places.metadata
            )
        best = ranked(results, spec.sweep)[0]
        if best.error:
            raise JobFailed(f"no trial came to an end; the best one's error: {best.error}")
        result = _finish(spec.sweep.on_finish, trials[best.name])
        run.log_metrics({f"best_{spec.sweep.metric}": best.metrics[spec.sweep.metric]})
        run.set_tags(
            {"raylora.best_trial": best.name, "raylora.best_adapter": result.adapter or ""}
        )
    emit(StageEvent("done"))
    emit(result)
    return result


def _finish(wanted: FinishSpec, best: Trial) -> ResultEvent:
    """Check the best trial's adapter and register it, where that is wanted."""
    assignment = best.assignment
    if not wanted.register_best:
        return ResultEvent(
            assignment.run_id, assignment.mlflow_run_id, None, [], str(assignment.places.adapter)
        )
    result = register(assignment, best.run, assess_on_cluster(assignment))
    if wanted.alias is None or result.adapter is None:
        return result
    registry = Registry(assignment.tracking_uri)
    promote(registry, result.adapter, wanted.alias)
    return replace(result, aliases=[*result.aliases, wanted.alias])


def propose(spec: SweepSpec) -> list[dict[str, Any]]:
    """The settings of all trials, by key."""
    space, number = spec.sweep.space, spec.sweep.trials
    base = _values(spec.base)
    if spec.sweep.searcher is Searcher.GRID:
        points = grid(space, base)[:number]
    else:
        dice = _Dice(spec.sweep.seed)
        points = [draw(space, base, dice) for _ in range(number or 1)]
    return [settings(space, point) for point in points]


class _Dice:
    """Suggestions at random."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._random.choice(choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        share = self._random.random()
        return low * (high / low) ** share if log else low + (high - low) * share

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        return self._random.randrange(low, high + 1, step)


def _values(spec: TrainSpec) -> Mapping[str, Any]:
    data = spec.model_dump(mode="json")
    return {key: get(data, key) for key in keys_of(TrainSpec).leaves}


def _steps(spec: TrainSpec) -> int:
    assert spec.training.max_steps is not None, "sweep_rules wants it"
    return spec.training.max_steps


if __name__ == "__main__":
    sys.exit(main())
