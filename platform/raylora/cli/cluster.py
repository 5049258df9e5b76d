"""`raylora cluster`: the local cluster that commands start by themselves and share."""

import contextlib
import time
from typing import Any

import click

from raylora.cli.options import address_option, output_option
from raylora.cli.output import emit, make_table, next_commands, note
from raylora.cli.stopping import close_run
from raylora.cluster import capacity, head
from raylora.cluster.connect import Cluster, connect
from raylora.cluster.job_info import JobInfo
from raylora.cluster.jobs import JobClient, nodes
from raylora.errors import RayloraError


@click.group("cluster")
def command() -> None:
    """Start, inspect and stop the local cluster."""


@command.command()
@output_option
def up(output: str) -> None:
    """Start the local cluster if it is not up. Other commands do it by themselves."""
    began = time.monotonic()
    was_up = head.running() is not None
    cluster = connect(None)
    note("was up already" if was_up else f"started in {time.monotonic() - began:.1f} s")
    _show(_facts(cluster), output)
    next_commands(["raylora submit quickstart", "raylora cluster down"])


@command.command()
@address_option
@output_option
def status(address: str | None, output: str) -> None:
    """Show a cluster: where it is, what it has, what runs. Exits 3 where none is up."""
    cluster = connect(address, start=False)
    client = JobClient(cluster)
    running = [job.job_id for job in client.list() if not job.state.terminal]
    _show(_facts(cluster) | {"running_jobs": running}, output)


@command.command()
@output_option
def down(output: str) -> None:
    """Stop the local cluster and all that runs on it."""
    began = time.monotonic()
    interrupted = _stop_jobs()
    stopped = head.stop()
    for job in interrupted:
        close_run(job)
    note(f"stopped in {time.monotonic() - began:.1f} s" if stopped else "no local cluster was up")
    emit({"stopped": stopped, "interrupted_jobs": [job.job_id for job in interrupted]}, output)
    if interrupted:
        next_commands([f"raylora jobs resume {job.job_id}" for job in interrupted])


def _stop_jobs() -> list[JobInfo]:
    """Tell running jobs to end, so that they close their runs; together they have 4 s."""
    interrupted: list[JobInfo] = []
    # A head that hangs cannot be told anything; it is ended all the same.
    with contextlib.suppress(RayloraError):
        if head.running() is None:
            return interrupted
        client = JobClient(connect(None, start=False))
        interrupted = [job for job in client.list() if not job.state.terminal]
        client.request_stop([job.job_id for job in interrupted], wait_s=4.0)
    return interrupted


def _show(facts: dict[str, Any], output: str) -> None:
    readable = facts | {"capacity": capacity.amounts(facts["capacity"])}
    emit(facts, output, lambda: make_table(("cluster", ""), readable.items()))


def _facts(cluster: Cluster) -> dict[str, Any]:
    living = nodes(cluster)
    return {
        "dashboard": cluster.dashboard_url,
        "gcs": cluster.gcs_address,
        "local": cluster.is_local,
        "nodes": [node.address for node in living],
        "capacity": capacity.totals(living),
    }
