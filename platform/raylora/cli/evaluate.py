"""`raylora evaluate` and `raylora baseline`: score the base and adapters, and compare them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType

from raylora.cli import live, submit
from raylora.cli.event_text import scored
from raylora.cli.options import (
    address_option,
    config_argument,
    output_option,
    overrides_argument,
)
from raylora.cli.output import MISSING, emit, make_table, next_commands, note
from raylora.cli.progress import Outcome, Progress
from raylora.cli.tracked import as_typed, same_store, sync_line
from raylora.cluster import submission
from raylora.cluster.connect import connect
from raylora.cluster.events import ComparisonEvent, EvaluationEvent
from raylora.cluster.jobs import JobClient
from raylora.cluster.shipped_files import name_datasets
from raylora.cluster.submission import Submitted
from raylora.config.compose import load_evaluate
from raylora.config.evaluate_spec import BASE, EvaluateSpec
from raylora.config.metric import lower_is_better
from raylora.config.places import new_run_id
from raylora.tracking.run_files import PAGE, PREDICTIONS

PRESET = "quickstart"
"""What is asked where no CONFIG is named."""

detach_option = click.option(
    "--detach/--follow",
    default=False,
    help="Return once the cluster has the job, or stay until it has ended (the default).",
)


@click.command("evaluate")
@click.argument("config", required=False)
@overrides_argument
@click.option(
    "--compare",
    metavar="SUBJECT,SUBJECT,...",
    help="Who is asked, each compared with those before it: base, NAME@champion, NAME@7, or the "
    "folder of an adapter (with a /). The same as subjects=[...].",
)
@address_option
@detach_option
@output_option
def command(
    config: str | None,
    overrides: tuple[str, ...],
    compare: str | None,
    address: str | None,
    detach: bool,
    output: str,
) -> None:
    """Score the base and adapters on data sets, and compare them row by row.

    CONFIG is the name of a shipped preset (raylora config list) or a YAML file, and quickstart
    where it is left out; KEY=VALUE changes one value of it, such as evaluation.max_rows=50.
    """
    if config is not None and "=" in config and not Path(config).is_file():
        config, overrides = None, (config, *overrides)
    subjects = [f"subjects=[{compare}]"] if compare else []
    run(load_evaluate(config or PRESET, [*overrides, *subjects]).spec, address, detach, output)


@click.command("baseline")
@config_argument
@overrides_argument
@address_option
@detach_option
@output_option
def baseline(
    config: str, overrides: tuple[str, ...], address: str | None, detach: bool, output: str
) -> None:
    """Score the base alone: `raylora evaluate` with subjects=[base]."""
    spec = load_evaluate(config, [*overrides, f"subjects=[{BASE}]"]).spec
    run(spec, address, detach, output)


def run(spec: EvaluateSpec, address: str | None, detach: bool, output: str) -> None:
    """Submit an evaluation and, unless detached, follow it to its end and show what it found."""
    submitted, client = start(spec, address)
    if detach:
        emit({"job_id": submitted.job_id, "run_id": submitted.run_id}, output)
        next_commands([f"raylora jobs logs -f {submitted.job_id}"])
        return
    show(followed(client, submitted, output), submitted, output)


def start(spec: EvaluateSpec, address: str | None) -> tuple[Submitted[EvaluateSpec], JobClient]:
    """Submit an evaluation."""
    if address is None:
        note("using the local cluster (the first command that needs it starts it)")
    cluster = connect(address)
    client = JobClient(cluster)
    submitted = submission.submit(
        client,
        cluster,
        name_datasets(spec),
        run_id=new_run_id(),
        base=Path.cwd(),
        program=submission.EVALUATE,
    )
    submit.announce(submitted, cluster)
    return submitted, client


def followed(client: JobClient, submitted: Submitted[EvaluateSpec], output: str) -> Outcome:
    """Stay until the job has ended. Raises JobFailed."""
    outcome = live.follow(client, submitted.job_id, output)
    submit.require_success(outcome)
    return outcome


def show(
    outcome: Outcome,
    submitted: Submitted[EvaluateSpec],
    output: str,
    written: Sequence[Path] = (),
) -> None:
    """Print what an evaluation found; `written` are files beside the data."""
    job, progress = outcome.job, outcome.progress
    summary: dict[str, Any] = {
        "job_id": job.job_id,
        "state": job.state,
        "run_id": job.run_id,
        "mlflow_run_id": (progress.report.mlflow_run_id or None) if progress.report else None,
        "folder": progress.report.folder if progress.report else None,
        "seconds": job.seconds,
        "written": [str(path) for path in written],
    }
    if output == "json":
        # The last of the JSON lines that told of the job's events.
        click.echo(json.dumps({"event": "ended", **summary, **_figures(progress)}))
        return
    emit(summary, output, Group(*tables(progress)))
    spec = submitted.spec()
    outputs = as_typed(spec.outputs)
    if progress.report:
        note(f"\npage: {progress.report.folder}/{PAGE}")
        note(f"rows: {progress.report.folder}/{PREDICTIONS}")
    for path in written:
        note(f"written: {path}")
    if summary["mlflow_run_id"] is None:
        note("the tracking store does not have it yet: its server was away")
        next_commands([sync_line(submitted.run_id, outputs)])
    else:
        store = same_store(spec.tracking.uri, outputs)
        next_commands([f"raylora runs show {job.run_id}{store}"])


def tables(progress: Progress) -> Iterator[RenderableType]:
    """Scores by data set, then comparisons, then the forgetting check."""
    for dataset in dict.fromkeys(event.dataset for event in progress.evaluations):
        mine = [event for event in progress.evaluations if event.dataset == dataset]
        metrics = list(dict.fromkeys(name for event in mine for name in event.metrics))
        rows = [
            (e.subject, e.rows, e.unasked, *(_with_interval(e, name) for name in metrics))
            for e in mine
        ]
        yield make_table((dataset, "rows", "not asked", *metrics), rows)
    checks = [c for c in progress.comparisons if c.forgetting is not None]
    compared = [c for c in progress.comparisons if c.forgetting is None]
    if compared:
        yield make_table(_COMPARED, map(_comparison, compared))
    if checks:
        yield make_table(("forgetting check", *_COMPARED[1:]), map(_check, checks))


_COMPARED = (
    *("comparison", "against", "data set", "metric", "difference", "95 % interval"),
    *("wins", "losses", "ties", "regressions", "verdict"),
)


def _comparison(c: ComparisonEvent) -> tuple[object, ...]:
    return (
        *(c.subject, c.against, c.dataset, c.metric, _signed(c.metric, c.difference)),
        f"{_signed(c.metric, c.low)} to {_signed(c.metric, c.high)}",
        *(c.wins, c.losses, c.ties, c.regressions, c.verdict),
    )


def _check(c: ComparisonEvent) -> tuple[object, ...]:
    verdict = "forgotten" if c.forgetting else "no forgetting shown"
    return (*_comparison(c)[:-1], verdict)


def _with_interval(event: EvaluationEvent, metric: str) -> str:
    value = scored(metric, event.metrics.get(metric, float("nan")))
    if value == MISSING or metric not in event.intervals:
        return value
    low, high = (scored(metric, bound) for bound in event.intervals[metric])
    return f"{value} ({low} to {high})"


def _signed(metric: str, value: float) -> str:
    """Shares in points of a hundred."""
    return f"{value:+.4f}" if lower_is_better(metric) else f"{100 * value:+.1f}"


def _figures(progress: Progress) -> dict[str, Any]:
    """NaN is no JSON: what is missing is null."""
    return {
        "scores": [
            asdict(event)
            | {"metrics": {k: None if v != v else v for k, v in event.metrics.items()}}
            for event in progress.evaluations
        ],
        "comparisons": [asdict(event) for event in progress.comparisons],
    }
