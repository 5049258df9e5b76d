"""The driver of a fine-tuning job: `python -m raylora.jobs.finetune spec.yaml --run-id ID`.

    read the data -> open the MLflow run -> train -> check and evaluate -> register

One MLflow run from the first line to the last, through every restart of the workers. Nothing is
registered unless the adapter on disk is whole and gives the trained model's logits.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from raylora.cluster.bundle import as_named
from raylora.cluster.events import ResultEvent, StageEvent, emit
from raylora.config.compose import read_resolved
from raylora.config.data_spec import Ingest
from raylora.config.places import run_dir
from raylora.config.train_spec import TrainSpec
from raylora.jobs.assessing import assess_on_cluster
from raylora.jobs.assignment import Assessment, Assignment, make_folders
from raylora.jobs.data.survey import survey
from raylora.jobs.driver import connect, drive
from raylora.jobs.record import recorded
from raylora.jobs.registering import register
from raylora.jobs.train.outcome import Outcome
from raylora.jobs.trainer import run_workers
from raylora.tracking.location import tracking_uri


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job."""
    return drive(
        "raylora.jobs.finetune",
        lambda given: finetune(read_resolved(given.spec, TrainSpec), given.run_id, given.commit),
        argv,
    )


def finetune(spec: TrainSpec, run_id: str, commit: str = "") -> ResultEvent:
    """Train, check, evaluate and register one adapter. The cluster is the one Ray finds.

    commit: of the git repository that the job was submitted from.
    """
    places = run_dir(Path(spec.outputs).absolute(), spec.tracking.experiment, run_id)
    make_folders(places)
    # Mistakes in the data are found before anything is started.
    data = survey(spec.data, Path.cwd())
    connect()
    uri = tracking_uri(spec.tracking, spec.outputs)
    with recorded(spec, run_id, uri, data, commit) as run:
        assignment = Assignment(spec, run_id, run.mlflow_run_id, uri, places)
        outcome, assessment = train(assignment)
        run.log_metrics({"final_loss": outcome.loss}, outcome.steps)
        result = register(assignment, run, assessment)
        run.set_tags({"raylora.kept_step": str(outcome.kept_step)})
    emit(StageEvent("done"))
    emit(result)
    return result


def train(assignment: Assignment) -> tuple[Outcome, Assessment]:
    """Train one adapter, and check and evaluate what is on disk."""
    _ingest(assignment.spec)
    outcome: Outcome = run_workers(assignment)
    return outcome, assess_on_cluster(assignment)


def _ingest(spec: TrainSpec) -> None:
    """Tokenise on all nodes where the spec wants that; workers find it in the cache."""
    if spec.data.ingest is Ingest.RAY_DATA:
        emit(StageEvent("data", as_named(spec.data.train_label)))
        from raylora.jobs.ingest import ingest

        ingest(spec)


if __name__ == "__main__":
    sys.exit(main())
