"""`raylora jobs`: list, look at, stop and resume what runs on a cluster."""

import sys

import click

from raylora.cli import live
from raylora.cli.event_text import plain
from raylora.cli.options import address_option, output_option
from raylora.cli.output import emit, make_table, next_commands, note
from raylora.cli.stopping import stop_job
from raylora.cli.submit import announce, finish
from raylora.cluster import events, submission
from raylora.cluster.connect import connect
from raylora.cluster.job_info import JobInfo
from raylora.cluster.jobs import JobClient
from raylora.errors import JobFailed


@click.group("jobs")
def command() -> None:
    """List, follow and stop jobs."""


@command.command("list")
@address_option
@output_option
def list_jobs(address: str | None, output: str) -> None:
    """List the jobs of a cluster, the newest first."""
    jobs = _client(address).list()
    columns = ("job", "name", "state", "started (UTC)", "seconds", "program")
    rows = [
        (
            job.job_id,
            job.name or None,
            job.state,
            f"{job.started:%Y-%m-%d %H:%M:%S}" if job.started else None,
            None if job.seconds is None else round(job.seconds),
            job.program or None,
        )
        for job in jobs
    ]
    emit([_facts(job) for job in jobs], output, lambda: make_table(columns, rows))


@command.command()
@click.argument("job_id", metavar="ID")
@address_option
@output_option
def status(job_id: str, address: str | None, output: str) -> None:
    """Show one job."""
    job = _client(address).status(job_id)
    emit(_facts(job), output)
    next_commands(_next(job))


@command.command()
@click.argument("job_id", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Stay and print lines as they come.")
@click.option("--raw", is_flag=True, help="Print events as the job wrote them.")
@address_option
def logs(job_id: str, follow: bool, raw: bool, address: str | None) -> None:
    """Print what a job has written.

    With --follow, exits 1 where the job failed, 5 or 6 where its input was at fault. Ctrl-C ends
    the printing, not the job.
    """
    client = _client(address)
    lines = client.follow(job_id) if follow else client.logs(job_id).splitlines()
    try:
        for line in lines:
            event = None if raw else events.parse(line)
            click.echo(line if event is None else plain(event))
            sys.stdout.flush()
    except KeyboardInterrupt:
        note(f"\njob {job_id} goes on; stop it with: raylora jobs stop {job_id}")
        raise
    if follow:
        job = client.status(job_id)
        if not job.state.ok:
            raise JobFailed(f"job {job_id} ended {job.state}", exit_code=job.exit_code)


@command.command()
@click.argument("job_id", metavar="ID")
@address_option
@output_option
def stop(job_id: str, address: str | None, output: str) -> None:
    """Stop a job (SIGTERM) and wait until it has ended; its run is KILLED then."""
    job = stop_job(_client(address), job_id)
    emit(_facts(job), output)
    if job.run_id:
        next_commands([f"raylora jobs resume {job_id}"])


@command.command()
@click.argument("job_id", metavar="ID")
@click.option("--detach/--follow", default=False, help="Return at once, or stay until the end.")
@address_option
@output_option
def resume(job_id: str, detach: bool, address: str | None, output: str) -> None:
    """Go on with the run of a stopped or failed job, from its last checkpoint.

    ID is a job or a run. The same spec and files are submitted again under the same run, so the
    run continues: it is not a second one. Works after the cluster has been restarted.
    """
    go_on(job_id, detach, address, output)


def go_on(job_id: str, detach: bool, address: str | None, output: str) -> None:
    """Submit an ended job again and, unless detached, follow it to its end."""
    cluster = connect(address)
    client = JobClient(cluster)
    submitted = submission.resume(client, job_id)
    announce(submitted, cluster)
    if detach:
        emit({"job_id": submitted.job_id, "run_id": submitted.run_id}, output)
        next_commands([f"raylora jobs logs -f {submitted.job_id}"])
        return
    finish(live.follow(client, submitted.job_id, output), submitted, output)


def _client(address: str | None) -> JobClient:
    # A head that is not up has no jobs: nothing is started to find that out.
    return JobClient(connect(address, start=False))


def _facts(job: JobInfo) -> dict[str, object]:
    return {
        "job_id": job.job_id,
        "name": job.name or None,
        "run_id": job.run_id,
        "program": job.program or None,
        "state": job.state,
        "started": job.started,
        "ended": job.ended,
        "seconds": job.seconds,
        "message": job.message,
    }


def _next(job: JobInfo) -> list[str]:
    if not job.state.terminal:
        return [f"raylora jobs logs -f {job.job_id}", f"raylora jobs stop {job.job_id}"]
    commands = [f"raylora jobs logs {job.job_id}"]
    if job.run_id and not job.state.ok:
        commands.append(f"raylora jobs resume {job.job_id}")
    return commands
