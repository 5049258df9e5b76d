"""`raylora sweep`: search over settings on a cluster and follow it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from raylora.cli import live, submit, sweep_view
from raylora.cli.options import (
    address_option,
    config_argument,
    output_option,
    overrides_argument,
)
from raylora.cli.output import emit, next_commands, note
from raylora.cli.tracked import store_uri
from raylora.cluster import submission
from raylora.cluster.connect import connect
from raylora.cluster.jobs import JobClient
from raylora.config.compose import load_sweep
from raylora.config.places import new_run_id
from raylora.config.presets import Kind, presets
from raylora.tracking.sweeps import get_sweep


@click.command("sweep")
@config_argument
@overrides_argument
@address_option
@click.option(
    "--detach/--follow",
    default=False,
    help="Return once the cluster has the job, or stay until it has ended (the default).",
)
@output_option
def command(
    config: str, overrides: tuple[str, ...], address: str | None, detach: bool, output: str
) -> None:
    """Search over settings: train all trials on one base, and register the best one's adapter.

    CONFIG is the name of a shipped preset (raylora config list) or a YAML file; KEY=VALUE changes
    one value of it, such as sweep.trials=16.
    """
    resolved = load_sweep(config, overrides)
    if address is None:
        note("using the local cluster (the first command that needs it starts it)")
    cluster = connect(address)
    client = JobClient(cluster)
    submitted = submission.submit(
        client,
        cluster,
        resolved.spec,
        run_id=new_run_id(),
        base=Path.cwd(),
        program=submission.SEARCH,
        config=_as_submitted(config, overrides),
    )
    submit.announce(submitted, cluster)
    if detach:
        emit({"job_id": submitted.job_id, "run_id": submitted.run_id}, output)
        next_commands([f"raylora jobs logs -f {submitted.job_id}"])
        return
    outcome = live.follow(client, submitted.job_id, output)
    submit.require_success(outcome)
    spec = submitted.spec()
    if output == "table" and (cluster.is_local or spec.tracking.uri):
        details = get_sweep(store_uri(spec.tracking.uri, spec.outputs), submitted.run_id)
        emit({}, output, lambda: sweep_view.status_tables(details))
    submit.finish(outcome, submitted, output)


def _as_submitted(config: str, overrides: Sequence[str]) -> str:
    """What stands after `raylora submit` for a training with what trials begin with."""
    named = f"{Kind.SWEEP}/{config}" if config in presets(Kind.SWEEP) else config
    kept = [override for override in overrides if not override.lstrip("+~").startswith("sweep.")]
    return shlex.join([named, *kept])
