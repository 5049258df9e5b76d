"""`raylora batch`: ask every row of a file of one adapter, or of several at once."""

from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType

from raylora.cli import live
from raylora.cli.endpoint_start import environment, require_room
from raylora.cli.options import address_option, output_option
from raylora.cli.output import emit, make_table, next_commands, note
from raylora.cli.serve import DEFAULT_CONFIG
from raylora.cli.submit import require_success
from raylora.cluster.batch_submission import submit_batch
from raylora.cluster.connect import connect
from raylora.cluster.events import BatchEvent
from raylora.cluster.jobs import JobClient
from raylora.config.batch_spec import BatchSpec
from raylora.config.compose import load_serve
from raylora.errors import JobFailed


@click.command("batch")
@click.argument("source", metavar="IN")
@click.argument("answers", metavar="OUT")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE ...]")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="REF",
    help="name, name@7 or name@alias; may be repeated. Without it the base answers.",
)
@click.option("--base", is_flag=True, help="Let the base answer beside the adapters.")
@click.option("--system", help="System prompt. Without it: the one an adapter was trained with.")
@click.option("--no-system", is_flag=True, help="No system prompt but the rows' own.")
@click.option("--max-tokens", type=click.IntRange(1), help="Without it: the config's default.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--config",
    default=DEFAULT_CONFIG,
    show_default=True,
    help="Preset or YAML of an endpoint: its base, adapters' registry and replicas are used.",
)
@click.option("--detach/--follow", default=False, help="Return once the cluster has the job.")
@address_option
@output_option
def command(
    source: str,
    answers: str,
    overrides: tuple[str, ...],
    adapters: tuple[str, ...],
    base: bool,
    system: str | None,
    no_system: bool,
    max_tokens: int | None,
    temperature: float,
    seed: int,
    config: str,
    detach: bool,
    address: str | None,
    output: str,
) -> None:
    """Ask every row of IN; OUT gets one JSON line for each row and adapter.

    IN is a JSONL, JSON, CSV, Parquet or Arrow file (or a glob, folder or URL) with messages,
    prompts or instructions. Rows that cannot be asked have a line that says why. The same command
    again goes on where it was left. KEY=VALUE changes the endpoint's config, such as
    num_replicas=4.
    """
    spec = BatchSpec(
        input=source,
        output=answers,
        adapters=adapters,
        base=base,
        system_prompt="" if no_system else system,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        serving=load_serve(config, overrides).spec,
    )
    cluster = connect(address)
    client = JobClient(cluster)
    require_room(spec.serving, client)
    job_id = submit_batch(
        client,
        spec,
        is_local=cluster.is_local,
        base=Path.cwd(),
        env=environment(spec.serving, cluster),
    )
    note(f"job {job_id} on {cluster.dashboard_url}")
    if detach:
        emit({"job_id": job_id}, output)
        next_commands([f"raylora jobs logs -f {job_id}", f"raylora jobs stop {job_id}"])
        return
    outcome = live.follow(client, job_id, "table")
    found = outcome.progress.batch
    if found is not None:
        emit(_summary(found), output, lambda: _table(found))
    require_success(outcome)
    if found is None:
        raise JobFailed(
            f"job {job_id} ended without a word of its answers",
            hint=f"raylora jobs logs {job_id}",
        )


def _summary(found: BatchEvent) -> dict[str, Any]:
    return {
        "output": found.output,
        "answers": found.answers,
        "refused": found.refused,
        "resumed": found.resumed,
        "failed": found.failed,
        "tokens": found.tokens,
        "seconds": found.seconds,
        "tokens_per_second": found.tokens / found.seconds if found.seconds else 0.0,
        "refusals": found.refusals,
    }


def _table(found: BatchEvent) -> RenderableType:
    summary = _summary(found)
    refusals = summary.pop("refusals")
    parts: list[RenderableType] = [make_table(("batch", ""), summary.items())]
    if refusals:
        parts.append(make_table(("rows that could not be asked",), [[each] for each in refusals]))
    return Group(*parts)
