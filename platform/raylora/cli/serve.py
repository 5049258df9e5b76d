"""`raylora serve`: start, inspect and stop the HTTP endpoint."""

from typing import Any

import click
import httpx
from rich.console import Group

from raylora.cli.endpoint_client import KEY_VARIABLE, bearer
from raylora.cli.endpoint_start import follow_job, start_endpoint
from raylora.cli.options import address_option, output_option
from raylora.cli.output import emit, make_table, next_commands, note
from raylora.cli.serve_keys import command as keys
from raylora.cluster import applications
from raylora.cluster.applications import ServeStatus
from raylora.cluster.bundle import build
from raylora.cluster.connect import connect
from raylora.cluster.jobs import JobClient
from raylora.config.compose import load_serve
from raylora.errors import NotFound, Unreachable

DEFAULT_CONFIG = "quickstart"
PROGRAM_DOWN = "raylora.serve.down"
ANSWER_S = 5.0


@click.group("serve")
def command() -> None:
    """Start, inspect and stop the HTTP endpoint: OpenAI's API over the base and its adapters."""


command.add_command(keys)


@command.command("up")
@click.argument("arguments", nargs=-1, metavar="[CONFIG] [KEY=VALUE ...]")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="REF",
    help="name, name@7 or name@alias; may be repeated. Without it: what CONFIG names.",
)
@address_option
@output_option
def up(
    arguments: tuple[str, ...], adapters: tuple[str, ...], address: str | None, output: str
) -> None:
    """Start the endpoint and wait until it answers.

    CONFIG is the name of a shipped preset or a YAML file (quickstart if left out); KEY=VALUE
    changes one value of it, such as port=8001.
    """
    config, overrides = _split(arguments)
    chosen = [f"adapters=[{','.join(adapters)}]"] if adapters else []
    spec = load_serve(config, [*overrides, *chosen]).spec
    cluster = connect(address)
    start_endpoint(spec, cluster)
    state = applications.status(cluster)
    emit(_summary(state), output)
    if cluster.is_local:
        next_commands(
            [
                "raylora chat",
                f"curl {state.url}/v1/models",
                "raylora serve status",
                "raylora serve down",
            ]
        )


@command.command("status")
@address_option
@output_option
def status(address: str | None, output: str) -> None:
    """Show the applications, and which adapters the endpoint holds."""
    state = applications.status(connect(address, start=False))
    summary = _summary(state)
    if output == "table" and state.host is None:
        note("nothing is served; raylora serve up starts the endpoint")
    elif output == "table" and summary["adapters"] is None:
        note(
            "the endpoint does not say what it holds: it cannot be reached from here, or has keys "
            f"and {KEY_VARIABLE} is not one of them"
        )
    emit(summary, output, lambda: _status_table(summary))


@command.command("down")
@click.argument("name", required=False)
@address_option
@output_option
def down(name: str | None, address: str | None, output: str) -> None:
    """Stop the endpoint; with no other application left, Ray Serve too.

    NAME is the application's name, needed only where there are several.
    """
    cluster = connect(address, start=False)
    state = applications.status(cluster)
    if state.host is None:
        note("nothing is served")
        emit({"stopped": []}, output)
        return
    chosen = _chosen(state, name)
    if len(state.applications) > 1:
        client = JobClient(cluster)
        follow_job(client, client.submit(PROGRAM_DOWN, [chosen], build(""), name=f"down {chosen}"))
    else:
        applications.shut_down(cluster)
    emit({"stopped": [chosen] if chosen else []}, output)


def endpoint_adapters(url: str) -> list[dict[str, Any]] | None:
    """What /v1/adapters says; None where the endpoint cannot be reached from here, or asked."""
    try:
        answer = httpx.get(
            f"{url}/v1/adapters", timeout=ANSWER_S, trust_env=False, headers=bearer()
        )
        return answer.raise_for_status().json()["data"]
    except (httpx.HTTPError, ValueError):
        return None


def find_endpoint(given: str | None, address: str | None) -> str:
    """URL of the endpoint: as given, or that of the cluster's Serve. Raises Unreachable."""
    if given is not None:
        return given.rstrip("/").removesuffix("/v1")
    state = applications.status(connect(address, start=False))
    if state.url is None:
        raise Unreachable("nothing is served on this cluster", hint="raylora serve up")
    return state.url


def _split(arguments: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    if arguments and "=" not in arguments[0]:
        return arguments[0], arguments[1:]
    return DEFAULT_CONFIG, arguments


def _summary(state: ServeStatus) -> dict[str, Any]:
    held = None if state.url is None else endpoint_adapters(state.url)
    return {
        "url": None if state.url is None else f"{state.url}/v1",
        "applications": list(state.applications),
        "adapters": held,
    }


def _status_table(summary: dict[str, Any]) -> Group:
    apps = summary["applications"]
    adapters: list[dict[str, Any]] = summary["adapters"] or []
    columns = ("id", "state", "aliases", "rank", "bytes", "requests", "last_used")
    return Group(
        make_table(("endpoint",), [[summary["url"]]]),
        make_table(
            ("application", "state", "replicas", "message"),
            [(app.name, app.state, app.replicas, app.message) for app in apps],
        ),
        make_table(columns, [[entry[column] for column in columns] for entry in adapters]),
    )


def _chosen(state: ServeStatus, name: str | None) -> str:
    names = [app.name for app in state.applications]
    if name is not None and name not in names:
        raise NotFound(f"no application {name!r}", hint=f"there are: {', '.join(names) or 'none'}")
    if name is None and len(names) > 1:
        raise NotFound(
            f"there are {len(names)} applications: {', '.join(names)}",
            hint=f"raylora serve down {names[0]}",
        )
    return name or (names[0] if names else "")
