"""The driver of an evaluation: `python -m raylora.jobs.evaluate_adapters spec.yaml --run-id ID`.

read the rows -> find the subjects -> open the MLflow run -> ask -> compare -> write and log
"""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from raylora.cluster.events import (
    ComparisonEvent,
    EvaluationEvent,
    NoticeEvent,
    ReportEvent,
    StageEvent,
    emit,
)
from raylora.config.compose import read_resolved
from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.places import run_dir
from raylora.jobs.assignment import make_folders
from raylora.jobs.driver import connect, drive
from raylora.jobs.evaluate import asked_rows, predictions
from raylora.jobs.evaluate.asked_rows import AskedRows
from raylora.jobs.evaluate.evaluation_report import Report, report
from raylora.jobs.evaluate.page import page
from raylora.jobs.evaluate.row_result import RowResult
from raylora.jobs.evaluate.subject import Subject
from raylora.jobs.evaluating import ask_on_cluster, shards
from raylora.jobs.record import recorded
from raylora.jobs.subjects import resolve
from raylora.tracking.location import tracking_uri
from raylora.tracking.run_files import EVALUATION, PAGE, PREDICTIONS, REPORT

TYPE_TAG = "raylora.type"
SUBJECTS_TAG = "raylora.subjects"
NAMED = 5
"""Rows that were not asked which the log names; the report has all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job."""
    return drive(
        "raylora.jobs.evaluate_adapters",
        lambda given: evaluate(
            read_resolved(given.spec, EvaluateSpec), given.run_id, given.commit
        ),
        argv,
    )


def evaluate(spec: EvaluateSpec, run_id: str, commit: str = "") -> Report:
    """Ask all subjects all rows and log what they made of them. The cluster is Ray's to find.

    commit: of the git repository that the job was submitted from.
    """
    places = run_dir(Path(spec.outputs).absolute(), spec.tracking.experiment, run_id)
    make_folders(places)
    # Mistakes in the data and in names are found before anything is started.
    datasets = [
        asked_rows.read(dataset, spec.max_rows_of(dataset), Path.cwd())
        for dataset in spec.datasets
    ]
    uri = tracking_uri(spec.tracking, spec.outputs)
    subjects = resolve(spec, uri)
    _warn(spec, subjects)
    connect()
    tags = {
        TYPE_TAG: EVALUATION,
        SUBJECTS_TAG: ", ".join(subject.label for subject in subjects),
    }
    with recorded(spec, run_id, uri, commit=commit, tags=tags) as run:
        for rows in datasets:
            run.log_dataset(rows.dataset, rows.source, rows.digest, len(rows.rows), EVALUATION)
        results = _ask(spec, subjects, datasets)
        found = report(spec, run_id, subjects, datasets, results)
        folder = places.artifacts / EVALUATION
        _write(folder, found, results)
        run.log_metrics(_metrics(found))
        run.log_artifacts(folder, EVALUATION)
        _tell(found)
    emit(StageEvent("done"))
    emit(ReportEvent(run_id, run.mlflow_run_id, str(folder)))
    return found


def _warn(spec: EvaluateSpec, subjects: Sequence[Subject]) -> None:
    """Of adapters that are asked through another base than they were trained on."""
    for subject in subjects:
        other = spec.model.stored_otherwise(subject.label, subject.quantization)
        if other is not None:
            emit(NoticeEvent(other))


def _ask(
    spec: EvaluateSpec, subjects: Sequence[Subject], datasets: Sequence[AskedRows]
) -> dict[str, list[RowResult]]:
    """Results by data set, each in the order of its rows."""
    wanted = shards(spec, datasets, len(subjects))
    total = sum(len(rows.rows) for rows in datasets)
    emit(StageEvent("evaluate", f"{total} rows, {len(subjects)} subjects"))
    found: dict[tuple[int, int], list[RowResult]] = {}
    done, said = 0, 0
    for shard, results in ask_on_cluster(spec, subjects, wanted):
        found[shard.dataset, shard.start] = results
        done += len(shard.rows)
        if 10 * done // total > said:
            said = 10 * done // total
            emit(NoticeEvent(f"{done} of {total} rows asked"))
    return {
        rows.dataset: [result for key in sorted(found) if key[0] == place for result in found[key]]
        for place, rows in enumerate(datasets)
    }


def _write(folder: Path, found: Report, results: Mapping[str, Sequence[RowResult]]) -> None:
    for dataset, rows in results.items():
        predictions.write(folder / PREDICTIONS / f"{dataset}.parquet", rows)
    told = json.dumps(found.as_json(), indent=2, ensure_ascii=False)
    (folder / REPORT).write_text(told + "\n", encoding="utf-8")
    (folder / PAGE).write_text(page(found), encoding="utf-8")


def _metrics(found: Report) -> Mapping[str, float]:
    """dataset/metric/subject, as MLflow allows them; what is missing is not there."""
    logged = {
        _key(s.dataset, s.metric, s.subject): s.mean
        for s in found.scores
        if s.mean is not None and math.isfinite(s.mean)
    }
    for facts in found.datasets:
        logged[_key(facts.name, "unasked")] = float(facts.rows - facts.asked)
    return logged


def _key(*parts: str) -> str:
    """home-requests@7 is written home-requests.7: MLflow takes no @."""
    return "/".join(re.sub(r"[^\w\- .]", ".", part) for part in parts)


def _tell(found: Report) -> None:
    for row in found.unasked[:NAMED]:
        emit(NoticeEvent(f"not asked: {row.file}:{row.line}: {row.reason}"))
    if len(found.unasked) > NAMED:
        emit(NoticeEvent(f"not asked: {len(found.unasked)} rows in all; the report lists them"))
    for facts in found.datasets:
        for subject in found.subjects:
            mine = [
                s for s in found.scores if (s.dataset, s.subject) == (facts.name, subject.label)
            ]
            emit(
                EvaluationEvent(
                    subject.label,
                    facts.asked,
                    {s.metric: math.nan if s.mean is None else s.mean for s in mine},
                    facts.name,
                    facts.rows - facts.asked,
                    {
                        s.metric: [s.low, s.high]
                        for s in mine
                        if s.low is not None and s.high is not None
                    },
                )
            )
    for c in found.comparisons:
        emit(
            ComparisonEvent(
                *(c.dataset, c.metric, c.subject, c.against, c.rows),
                *(c.difference, c.low, c.high, c.wins, c.losses, c.ties, c.regressions),
                verdict=c.verdict.value,
                forgetting=c.forgetting,
            )
        )


if __name__ == "__main__":
    sys.exit(main())
