"""`raylora submit`: run a fine-tuning job on a cluster and follow it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType

from raylora.cli import live, plan
from raylora.cli.options import (
    address_option,
    config_argument,
    output_option,
    overrides_argument,
)
from raylora.cli.output import emit, make_table, next_commands, note
from raylora.cli.progress import Outcome, Progress
from raylora.cli.tracked import as_typed, same_store, sync_line
from raylora.cluster import submission
from raylora.cluster.connect import Cluster, connect
from raylora.cluster.events import ResultEvent
from raylora.cluster.jobs import JobClient
from raylora.cluster.submission import Submitted
from raylora.config.compose import load_serve, load_train
from raylora.config.model_spec import Quantization
from raylora.config.places import new_run_id
from raylora.config.sweep_spec import SweepSpec
from raylora.config.train_spec import TrainSpec
from raylora.errors import JobFailed


@click.command("submit")
@config_argument
@overrides_argument
@address_option
@click.option("--name", help="Name of the job and its adapter; the same as name=NAME.")
@click.option(
    "--detach/--follow",
    default=False,
    help="Return once the cluster has the job, or stay until it has ended (the default).",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and start nothing.")
@output_option
def command(
    config: str,
    overrides: tuple[str, ...],
    address: str | None,
    name: str | None,
    detach: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Run a fine-tuning job and follow it.

    CONFIG is the name of a shipped preset (raylora config list) or a YAML file; KEY=VALUE changes
    one value of it, such as lora.r=32.
    """
    resolved = load_train(config, [*overrides, *([f"name={name}"] if name else [])])
    if dry_run:
        plan.show(resolved, address, output)
        return
    if address is None:
        note("using the local cluster (the first command that needs it starts it)")
    cluster = connect(address)
    client = JobClient(cluster)
    submitted = submission.submit(
        client, cluster, resolved.spec, run_id=new_run_id(), base=Path.cwd()
    )
    announce(submitted, cluster)
    if detach:
        emit({"job_id": submitted.job_id, "run_id": submitted.run_id}, output)
        next_commands(
            [f"raylora jobs logs -f {submitted.job_id}", f"raylora jobs stop {submitted.job_id}"]
        )
        return
    finish(live.follow(client, submitted.job_id, output), submitted, output)


def announce(submitted: Submitted[Any], cluster: Cluster) -> None:
    """Say what was submitted where."""
    note(f"job {submitted.job_id} on {cluster.dashboard_url}")
    for file in submitted.bundle.files:
        note(f"  shipped {file.source} ({file.size / 1e6:.2f} MB) for {file.key}")


def require_success(outcome: Outcome) -> None:
    """Raise JobFailed for a job that did not succeed: with its error, or the end of its log."""
    job, error = outcome.job, outcome.progress.error
    if job.state.ok:
        return
    said = f"job {job.job_id} ended {job.state}"
    log = f"raylora jobs logs {job.job_id}   (all of the log)"
    if error is not None:
        hint = f"{error.hint}\n{log}" if error.hint else log
        raise JobFailed(f"{said}: {error.message}", hint=hint, exit_code=job.exit_code)
    tail = "\n".join(f"  {line}" for line in outcome.progress.tail)
    raise JobFailed(
        f"{said}: {_first_line(job.message)}\n{tail}".rstrip(), hint=log, exit_code=job.exit_code
    )


def finish(outcome: Outcome, submitted: Submitted[TrainSpec], output: str) -> None:
    """Print the result of a followed job and what to do next; JobFailed where it failed."""
    require_success(outcome)
    job, progress = outcome.job, outcome.progress
    result = progress.result
    summary: dict[str, Any] = {
        "job_id": job.job_id,
        "state": job.state,
        "run_id": job.run_id,
        "mlflow_run_id": (result.mlflow_run_id or None) if result else None,
        "adapter": result.adapter if result else None,
        "aliases": result.aliases if result else [],
        "adapter_dir": result.adapter_dir if result else None,
        "restarts": progress.restarts,
        "seconds": job.seconds,
        "scores": {event.subject: event.metrics for event in progress.evaluations},
    }
    if output == "json":
        # The last of the JSON lines that told of the job's events.
        line = {"event": "ended", **summary, "stage_seconds": progress.stage_seconds}
        click.echo(json.dumps(line))
        return
    emit(summary, output, Group(*_tables(summary, progress)))
    if result is None:
        return
    next_commands(list(_next(submitted.spec(), result)))


def _next(spec: TrainSpec, result: ResultEvent) -> Iterator[str]:
    """Commands that work as printed from this folder: they name the store where it is another."""
    outputs = as_typed(spec.outputs)
    if not result.mlflow_run_id:
        yield sync_line(result.run_id, outputs)
        return
    store = same_store(spec.tracking.uri, outputs)
    if isinstance(spec, SweepSpec):
        yield f"raylora sweeps report {result.run_id} --html report.html{store}"
    else:
        yield f"raylora runs show {result.run_id}{store}"
    if result.adapter is None:
        return
    yield f"raylora adapters show {result.adapter}{store}"
    # Another base or store would need a file of its own.
    if not store and spec.model.id == load_serve("quickstart").spec.model.id:
        yield f"raylora serve up --adapter {result.adapter}{as_trained(spec)}"


def as_trained(spec: TrainSpec) -> str:
    """What `raylora serve up` needs beside an adapter to serve it on the base it learnt on."""
    kept = spec.model.quantization
    return "" if kept is Quantization.NONE else f" model.quantization={kept}"


def _tables(summary: dict[str, Any], progress: Progress) -> Iterator[RenderableType]:
    rows = [(key, value) for key, value in summary.items() if key != "scores"]
    yield make_table(("job", ""), rows)
    if progress.evaluations:
        metrics = list(dict.fromkeys(name for e in progress.evaluations for name in e.metrics))
        scored = [
            (e.subject, e.rows, *(e.metrics.get(name) for name in metrics))
            for e in progress.evaluations
        ]
        yield make_table(("subject", "rows", *metrics), scored)


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0] if message.strip() else "no reason given"
