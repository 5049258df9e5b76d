"""`raylora sweeps`: list and look at sweeps, stop and resume them, report what they have shown."""

from pathlib import Path

import click

from raylora.cli import jobs, sweep_view
from raylora.cli.child import REPORT_PACKAGES, run_program
from raylora.cli.options import address_option, output_option, tracking_option
from raylora.cli.output import emit, next_commands, note
from raylora.cli.stopping import stop_job
from raylora.cli.tracked import same_store, store_uri
from raylora.cluster.connect import connect
from raylora.cluster.job_info import JobInfo
from raylora.cluster.jobs import JobClient
from raylora.cluster.submission import SEARCH
from raylora.config.sweep_spec import Mode
from raylora.errors import RayloraError
from raylora.tracking.nearest import not_found
from raylora.tracking.sweep_facts import SweepSummary
from raylora.tracking.sweeps import get_sweep, list_sweeps

REPORT = "raylora.sweeps.report.make"


@click.group(name="sweeps")
def command() -> None:
    """List, stop, resume and report sweeps."""


@command.command(name="list")
@click.option("--experiment", help="Only this experiment.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@tracking_option
@output_option
def list_command(
    experiment: str | None, limit: int, tracking_uri: str | None, outputs: str, output: str
) -> None:
    """Sweeps, newest first."""
    found = list_sweeps(store_uri(tracking_uri, outputs), experiment=experiment, limit=limit)
    emit(found, output, lambda: sweep_view.list_table(found))
    if found and output == "table":
        store = same_store(tracking_uri, outputs)
        next_commands([f"raylora sweeps status {found[0].run_id}{store}"])


@command.command()
@click.argument("run_id", metavar="ID")
@tracking_option
@output_option
def status(run_id: str, tracking_uri: str | None, outputs: str, output: str) -> None:
    """How a sweep stands: its trials, the best first, and how to train the best one again."""
    details = get_sweep(store_uri(tracking_uri, outputs), run_id)
    emit(sweep_view.status(details), output, lambda: sweep_view.status_tables(details))
    if output == "table":
        next_commands(_next(details.summary, same_store(tracking_uri, outputs)))


@command.command()
@click.argument("run_id", metavar="ID")
@address_option
@output_option
def stop(run_id: str, address: str | None, output: str) -> None:
    """Stop a sweep (SIGTERM to its job) and wait until it has ended; it can be resumed."""
    client = JobClient(connect(address, start=False))
    job = stop_job(client, _running_job(client, run_id).job_id)
    emit({"run_id": job.run_id, "job_id": job.job_id, "state": job.state}, output)
    next_commands([f"raylora sweeps resume {job.run_id}"])


@command.command()
@click.argument("run_id", metavar="ID")
@click.option("--detach/--follow", default=False, help="Return at once, or stay until the end.")
@address_option
@output_option
def resume(run_id: str, detach: bool, address: str | None, output: str) -> None:
    """Go on with a stopped or failed sweep: trials that are over are not trained again."""
    jobs.go_on(run_id, detach, address, output)


@command.command()
@click.argument("run_id", metavar="ID")
@click.option("--metric", help="Rank by another metric than the sweep's own.")
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), help="Of that metric.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Also write a page with interactive plots; it needs no network.",
)
@tracking_option
@output_option
def report(
    run_id: str,
    metric: str | None,
    mode: str | None,
    html: Path | None,
    tracking_uri: str | None,
    outputs: str,
    output: str,
) -> None:
    """What a sweep has shown: ranked trials, importance of each key, Pareto fronts."""
    arguments = [run_id, "--tracking-uri", store_uri(tracking_uri, outputs)]
    for option, value in (("--metric", metric), ("--mode", mode), ("--html", html)):
        arguments += [option, str(value)] if value is not None else []
    found = run_program(
        REPORT, arguments, needed_for="the report of a sweep", packages=REPORT_PACKAGES
    )
    emit(found, output, lambda: sweep_view.report_tables(found))
    if html is not None:
        note(f"page: {html}")
    elif output == "table":
        store = same_store(tracking_uri, outputs)
        next_commands([f"raylora sweeps report {run_id} --html report.html{store}"])


def _running_job(client: JobClient, run_id: str) -> JobInfo:
    """The job of a sweep: a sweep that was resumed has had several."""
    sweeps = [job for job in client.list() if job.program == SEARCH]
    of_sweep = [job for job in sweeps if run_id in (job.run_id, job.job_id)]
    if not of_sweep:
        known = dict.fromkeys(job.run_id for job in sweeps if job.run_id)
        raise not_found("sweep", run_id, known, where="among the jobs of this cluster")
    for job in of_sweep:
        if not job.state.terminal:
            return job
    last = of_sweep[0]
    raise RayloraError(
        f"sweep {last.run_id} is not running: its job {last.job_id} ended {last.state}",
        hint=f"raylora sweeps {'report' if last.state.ok else 'resume'} {last.run_id}",
    )


def _next(sweep: SweepSummary, store: str) -> list[str]:
    report = f"raylora sweeps report {sweep.run_id}{store}"
    if sweep.status.terminal:
        return [report]
    return [
        report,
        f"raylora trials stop {sweep.run_id} TRIAL{store}",
        f"raylora sweeps stop {sweep.run_id}",
    ]
