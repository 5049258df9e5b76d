"""raylora config: what ships, what a configuration resolves to, whether it is right."""

import json
from typing import Any

import click
from rich.text import Text

from raylora.cli.options import config_argument, output_option, overrides_argument
from raylora.cli.output import emit, make_table, next_commands
from raylora.config.compatibility import RULES
from raylora.config.compose import Resolved, load
from raylora.config.dotted import get
from raylora.config.origin import Origin, OriginKind
from raylora.config.presets import GROUPS, Kind, headline, kind_of, options, presets
from raylora.config.schema import json_schema
from raylora.errors import InvalidConfig, Problem

kind_option = click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    help="Spec that CONFIG describes. Without it: the folder's it lies in, else train.",
)


@click.group()
def command() -> None:
    """List, show and validate configurations."""


@command.command("list")
@output_option
def list_(output: str) -> None:
    """List shipped presets and the groups to choose from."""
    rows = [
        {"name": f"{folder}/{name}", "use": use, "about": headline(f"{folder}/{name}")}
        for folder, names, usage in _shipped()
        for name in names
        for use in [usage.format(folder=folder, name=name)]
    ]
    emit(rows, output)
    next_commands(["raylora config show quickstart", "raylora plan quickstart lora.r=32"])


@command.command()
@config_argument
@overrides_argument
@kind_option
@click.option("--yaml", "as_yaml", is_flag=True, help="Print plain YAML, ready to be a CONFIG.")
@output_option
def show(
    config: str, overrides: tuple[str, ...], kind: Kind | None, as_yaml: bool, output: str
) -> None:
    """Show every value of CONFIG and where it comes from."""
    resolved = load(Kind(kind or kind_of(config)), config, overrides)
    if as_yaml:
        click.echo(resolved.to_yaml(), nl=False)
        return
    values = _values(resolved)
    emit(
        {
            key: {"value": value, "origin": str(origin), "kind": origin.kind}
            for key, (value, origin) in values.items()
        },
        output,
        lambda: make_table(
            ("key", "value", "from"),
            [
                (
                    key,
                    _one_line(value),
                    Text(str(origin), "dim" if origin.kind is OriginKind.DEFAULT else ""),
                )
                for key, (value, origin) in values.items()
            ],
        ),
    )


@command.command()
@click.argument("configs", nargs=-1, required=True, metavar="CONFIG...")
@kind_option
@output_option
def validate(configs: tuple[str, ...], kind: Kind | None, output: str) -> None:
    """Check configurations and print every mistake of each."""
    rows: list[dict[str, str]] = []
    problems: list[Problem] = []
    for config in configs:
        chosen = Kind(kind or kind_of(config))
        try:
            name = load(chosen, config).spec.name
        except InvalidConfig as error:
            problems += error.problems
        else:
            rows.append({"config": config, "kind": chosen, "name": name, "state": "valid"})
    if rows:
        emit(rows, output)
    if problems:
        raise InvalidConfig(problems)


@command.command()
@output_option
def rules(output: str) -> None:
    """List what does not go together in a training, why, and what to write instead."""
    rows = [
        {"refused": rule.name, "because": rule.reason, "instead": rule.remedy} for rule in RULES
    ]
    emit(rows, output)


@command.command()
@click.argument("kind", type=click.Choice([kind.value for kind in Kind]))
@output_option
def schema(kind: Kind, output: str) -> None:
    """Print the JSON Schema of a spec, for editors that complete and check YAML."""
    document = json_schema(Kind(kind).spec_type)
    emit(document, output, lambda: Text(json.dumps(document, indent=2)))


def _shipped() -> list[tuple[str, list[str], str]]:
    """Folder, names in it, and how one is used."""
    return [
        (Kind.TRAIN, presets(Kind.TRAIN), "raylora submit {name}"),
        (Kind.SWEEP, presets(Kind.SWEEP), "raylora sweep {name}"),
        (Kind.SERVE, presets(Kind.SERVE), "raylora serve up {name}"),
        (Kind.EVALUATE, presets(Kind.EVALUATE), "raylora evaluate {name}"),
        *(
            (group, options(group), "+" * (group == "experiment") + "{folder}={name}")
            for group in GROUPS
        ),
    ]


def _values(resolved: Resolved[Any]) -> dict[str, tuple[Any, Origin]]:
    data = resolved.spec.model_dump(mode="json")
    return {key: (get(data, key), origin) for key, origin in resolved.provenance.items()}


def _one_line(value: object) -> str:
    """As in YAML, cut after 70 characters."""
    text = value if isinstance(value, str) else json.dumps(value)
    text = " ".join(text.split())
    return text if len(text) <= 70 else text[:67] + "..."
