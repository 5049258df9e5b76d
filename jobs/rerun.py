"""Trains a registered version again: `python -m raylora.jobs.rerun spec.yaml --config NAME@V`.

    check the data -> train -> check and evaluate -> compare with the version

Nothing is registered. The job fails where the version is not reproduced: other data, metrics
further away than TOLERANCE, or, where nothing in the lineage differs and one CPU worker trained,
another byte in the adapter's file.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raylora.cluster.events import NoticeEvent, ResultEvent, StageEvent, emit
from raylora.config.compose import read_resolved
from raylora.config.places import cache, run_dir
from raylora.config.train_spec import TrainSpec
from raylora.errors import InvalidData, JobFailed
from raylora.jobs.assignment import HELD_OUT, Assessment, Assignment, make_folders
from raylora.jobs.data.survey import Surveyed, survey
from raylora.jobs.driver import connect, drive
from raylora.jobs.finetune import train
from raylora.jobs.record import recorded
from raylora.jobs.reproduction import Reproduction, compare
from raylora.tracking.adapters.lineage import lineage_of
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.adapters.version import Version
from raylora.tracking.location import tracking_uri
from raylora.tracking.runs import get_run

RERUN_OF_TAG = "raylora.rerun_of"
REPORT = "rerun.json"
"""In the run's metadata and among its artifacts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job."""
    return drive(
        "raylora.jobs.rerun",
        lambda given: rerun(read_resolved(given.spec, TrainSpec), given.run_id, given.config),
        argv,
    )


def rerun(spec: TrainSpec, run_id: str, ref: str) -> Reproduction:
    """Train the version that ref means by this spec, its own, and compare."""
    places = run_dir(Path(spec.outputs).absolute(), spec.tracking.experiment, run_id)
    make_folders(places)
    data = survey(spec.data, Path.cwd())
    uri = tracking_uri(spec.tracking, spec.outputs)
    registry = Registry(uri)
    version = registry.resolve(ref)
    _check_data(uri, version, data)
    # All that is asked of the store, before hours in which it may go away.
    lineage = lineage_of(registry, version)
    registered = registry.download(version, cache() / "adapters")
    connect()
    with recorded(spec, run_id, uri, data, tags={RERUN_OF_TAG: str(version)}) as run:
        assignment = Assignment(spec, run_id, run.mlflow_run_id, uri, places)
        outcome, assessment = train(assignment)
        metrics = {"final_loss": outcome.loss, **_held_out(assessment)}
        run.log_metrics(metrics, outcome.steps)
        emit(StageEvent("verify", f"compare with {version}"))
        found = compare(lineage, registered, places.adapter, metrics)
        report: Mapping[str, Any] = found.as_dict()
        run.log_dict(report, REPORT)
        (places.metadata / REPORT).write_text(found.to_json(), encoding="utf-8")
        for line in found.lines():
            emit(NoticeEvent(line))
        if not found.reproduced:
            raise JobFailed(
                f"{version} was not reproduced: {'; '.join(found.faults)}",
                hint=f"raylora runs compare {version.run_id} {run_id}",
            )
    emit(StageEvent("done"))
    emit(ResultEvent(run_id, assignment.mlflow_run_id, None, [], str(places.adapter)))
    return found


def _held_out(assessment: Assessment) -> dict[str, float]:
    return {
        HELD_OUT[subject] + metric: value
        for subject, metrics in assessment.scores.items()
        for metric, value in metrics.items()
    }


def _check_data(uri: str, version: Version, data: Sequence[Surveyed]) -> None:
    """The rows must say what they said, before anything is trained on them."""
    wanted = {(d.name, d.context): d.digest for d in get_run(uri, version.mlflow_run_id).datasets}
    digests = set(wanted.values())
    for part in data:
        if digests and part.digest not in digests:
            raise InvalidData(
                f"{version} was trained with other {part.context} rows: their digest is "
                f"{part.digest[:12]}, and its run names {', '.join(d[:12] for d in digests)}",
                file=part.source,
                hint="name the rows that it was trained with: data.train=PATH",
            )


if __name__ == "__main__":
    sys.exit(main())
