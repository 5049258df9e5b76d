"""`raylora runs`: list, show and compare what was tracked, and send what was not yet."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import click
from rich.console import Group
from rich.table import Table

from raylora.cli.options import output_option, tracking_option
from raylora.cli.output import MISSING, emit, make_table, next_commands, note
from raylora.cli.tracked import same_store, store_uri
from raylora.tracking.run_facts import Comparison, RunDetails, RunSummary
from raylora.tracking.runs import compare_runs, get_run, list_runs
from raylora.tracking.spooling.sync import Synced, choose, spools, sync

KEY_METRICS = ("loss", "heldout_base_exact_match", "heldout_exact_match")
"""Metrics that a list of runs shows; --output json has them all."""


@click.group(name="runs")
def command() -> None:
    """List, show, compare and sync tracked runs."""


@command.command(name="list")
@click.option("--experiment", help="Only this experiment.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@tracking_option
@output_option
def list_command(
    experiment: str | None, limit: int, tracking_uri: str | None, outputs: str, output: str
) -> None:
    """Runs, newest first."""
    found = list_runs(store_uri(tracking_uri, outputs), experiment=experiment, limit=limit)
    emit(found, output, lambda: _list_table(found))
    if found and output == "table":
        next_commands([f"raylora runs show {found[0].run_id}{same_store(tracking_uri, outputs)}"])


@command.command(name="show")
@click.argument("run_id")
@tracking_option
@output_option
def show_command(run_id: str, tracking_uri: str | None, outputs: str, output: str) -> None:
    """Parameters, metrics, data sets and artifacts of a run."""
    run = get_run(store_uri(tracking_uri, outputs), run_id)
    emit(run, output, lambda: _details(run))


@command.command(name="compare")
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN_ID RUN_ID ...")
@tracking_option
@output_option
def compare_command(
    run_ids: tuple[str, ...], tracking_uri: str | None, outputs: str, output: str
) -> None:
    """What differs between runs: parameters and last metric values."""
    if len(run_ids) < 2:
        raise click.UsageError("name two runs or more; `raylora runs list` shows them")
    comparison = compare_runs(store_uri(tracking_uri, outputs), run_ids)
    emit(comparison, output, lambda: _comparison_table(comparison))


@command.command(name="sync")
@click.argument("run_ids", nargs=-1, metavar="[RUN_ID ...]")
@click.option("--all", "every", is_flag=True, help="Every run below the outputs folder.")
@tracking_option
@output_option
def sync_command(
    run_ids: tuple[str, ...], every: bool, tracking_uri: str | None, outputs: str, output: str
) -> None:
    """Send what runs have logged while their server was away, and register their adapters.

    Each goes to the store that its job was given, or to --tracking-uri. A run whose job was killed
    is KILLED then. What has been sent already is not sent twice.
    """
    if every == bool(run_ids):
        raise click.UsageError("name runs or say --all")
    folder = Path(outputs).absolute()
    found = list(sync(spools(folder) if every else choose(folder, run_ids), tracking_uri))
    emit(found, output, lambda: _sync_table(found))
    for run in found:
        for reason in run.refusals:
            note(f"{run.run_id}: not taken: {reason}")
    if not found:
        note("all of it has been sent already")


def _sync_table(runs: Sequence[Synced]) -> Table:
    return make_table(
        ("run", "status", "points sent", "thinned", "lost", "adapter"),
        (
            (
                run.run_id,
                run.status or "its job runs and sends it",
                run.points,
                run.thinned,
                run.lost,
                run.adapter or None,
            )
            for run in runs
        ),
    )


def _list_table(runs: Sequence[RunSummary]) -> Table:
    metrics = [key for key in KEY_METRICS if any(key in run.metrics for run in runs)]
    return make_table(
        ("run", "name", "experiment", "status", "started", "duration", *metrics, "adapter"),
        (
            (
                run.run_id,
                run.name,
                run.experiment,
                run.status.value,
                f"{run.started:%Y-%m-%d %H:%M:%S}Z",
                str(timedelta(seconds=round(run.duration_s))),
                *(run.metrics.get(key) for key in metrics),
                run.adapter,
            )
            for run in runs
        ),
    )


def _details(run: RunDetails) -> Group:
    return Group(
        _list_table([run.summary]),
        make_table(
            ("metric", "last", "at step", "min", "max", "points"),
            (
                (key, value.last, value.last_step, value.min, value.max, value.points)
                for key, value in run.metrics.items()
            ),
        ),
        make_table(("system metric", "last"), run.system_metrics.items()),
        make_table(("parameter", "value"), run.params.items()),
        make_table(("tag", "value"), run.tags.items()),
        make_table(
            ("data set", "used for", "rows", "digest", "source"),
            ((d.name, d.context, d.rows, d.digest[:12], d.source) for d in run.datasets),
        ),
        make_table(("artifact",), ([path] for path in run.artifacts)),
    )


def _comparison_table(comparison: Comparison) -> Table:
    rows: list[list[object]] = [["adapter", *(run.adapter for run in comparison.runs)]]
    for values in (comparison.params, comparison.metrics):
        for key, row in values.items():
            rows.append([key, *(MISSING if value is None else value for value in row)])
    return make_table(("", *(run.run_id for run in comparison.runs)), rows)
