"""`raylora score`: an evaluation over files, with predictions and metrics written beside them."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from raylora.cli import evaluate
from raylora.cli.options import (
    address_option,
    config_argument,
    output_option,
    overrides_argument,
)
from raylora.cluster.shipped_files import spec_files
from raylora.config.compose import load_evaluate
from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.places import run_dir
from raylora.errors import InvalidConfig, Problem
from raylora.tracking.location import tracking_uri
from raylora.tracking.run_files import EVALUATION, REPORT, fetch_file, predictions_of

PREDICTIONS_SUFFIX, METRICS_SUFFIX = ".predictions.parquet", ".metrics.json"
"""In place of the suffix of the file that was scored."""


@click.command("score")
@config_argument
@overrides_argument
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Score this file with the settings of CONFIG's first data set. May be given repeatedly.",
)
@address_option
@output_option
def command(
    config: str,
    overrides: tuple[str, ...],
    files: Sequence[Path],
    address: str | None,
    output: str,
) -> None:
    """Score answers to the rows of files, and write answers and scores beside them.

    CONFIG is that of `raylora evaluate`. Beside rows.jsonl there will be rows.predictions.parquet,
    a row for each row and subject, and rows.metrics.json.
    """
    spec = load_evaluate(config, overrides).spec
    if files:
        spec = for_files(spec, files)
    scored = _local_files(spec)
    if address is not None and spec.tracking.uri is None:
        raise _no_way_back()
    submitted, client = evaluate.start(spec, address)
    outcome = evaluate.followed(client, submitted, output)
    written: list[Path] = []
    try:
        written.extend(write_beside(submitted.spec(), submitted.run_id, scored))
    finally:
        evaluate.show(outcome, submitted, output, written)


def for_files(spec: EvaluateSpec, files: Sequence[Path]) -> EvaluateSpec:
    """The spec with these files for its data sets, each asked as its first one was.

    Raises InvalidConfig for a file that is not there, and for two of one name.
    """
    first = spec.datasets[0]
    datasets = [
        first.model_copy(update={"source": str(file.absolute()), "name": None}) for file in files
    ]
    names = [asked.label for asked in datasets]
    problems = [
        Problem("--file", f"there is no file {file}", "Write the path of a file with rows")
        for file in files
        if not file.is_file()
    ]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        message, remedy = f"two files are called {repeated}", "Score them one after the other"
        problems.append(Problem("--file", message, remedy))
    if problems:
        raise InvalidConfig(problems)
    return spec.model_copy(update={"datasets": tuple(datasets)})


def write_beside(spec: EvaluateSpec, run_id: str, scored: Mapping[str, Path]) -> Iterator[Path]:
    """Put what a run found, by data set, beside the file it was asked from.

    It comes from the run's folder, and out of the tracking store where that is on another machine.
    """
    with TemporaryDirectory(prefix="raylora-") as folder:
        report = _found(spec, run_id, f"{EVALUATION}/{REPORT}", Path(folder))
        told = json.loads(report.read_text(encoding="utf-8"))
        for dataset, file in scored.items():
            found = _found(spec, run_id, predictions_of(dataset), Path(folder))
            predictions = file.with_suffix(PREDICTIONS_SUFFIX)
            shutil.copyfile(found, predictions)
            yield predictions
            metrics = file.with_suffix(METRICS_SUFFIX)
            text = json.dumps(_of(told, dataset), indent=2, ensure_ascii=False)
            metrics.write_text(text + "\n", encoding="utf-8")
            yield metrics


def _local_files(spec: EvaluateSpec) -> dict[str, Path]:
    """By data set. Raises InvalidConfig where none of them is a file here."""
    named = spec_files(spec, Path.cwd())
    found = {
        asked.label: named[key]
        for i, asked in enumerate(spec.datasets)
        if (key := f"datasets.{i}.source") in named and named[key].is_file()
    }
    if not found:
        raise InvalidConfig(
            [
                Problem(
                    "datasets",
                    "no data set is a file on this machine, to write scores beside",
                    "Name a file with --file or datasets, or use `raylora evaluate`",
                )
            ]
        )
    return found


def _found(spec: EvaluateSpec, run_id: str, artifact: str, folder: Path) -> Path:
    """An artifact of a run on this machine."""
    here = run_dir(spec.outputs, spec.tracking.experiment, run_id).artifacts / artifact
    if here.is_file():
        return here
    return fetch_file(tracking_uri(spec.tracking, spec.outputs), run_id, artifact, folder)


def _of(told: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The part of a report that is about one data set."""
    lists = {
        key: [entry for entry in told[key] if entry["dataset"] == dataset]
        for key in ("scores", "comparisons", "unasked")
    }
    (facts,) = [entry for entry in told["datasets"] if entry["name"] == dataset]
    kept = {key: told[key] for key in ("run_id", "name", "model", "written", "subjects")}
    return {**kept, "dataset": facts, **lists}


def _no_way_back() -> InvalidConfig:
    return InvalidConfig(
        [
            Problem(
                "tracking.uri",
                "null is a store on the cluster's own disk, which this machine does not see",
                "Write the address of an MLflow server that both reach",
            )
        ]
    )
