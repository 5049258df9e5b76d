"""Options that several commands share: one name, one variable and one help text each."""

from collections.abc import Callable
from typing import Any

import click

Decorated = Callable[..., Any]


def output_option(function: Decorated) -> Decorated:
    """--output table|json, passed as `output`."""
    return click.option(
        "--output",
        "-o",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="Format of the result on stdout.",
    )(function)


def address_option(function: Decorated) -> Decorated:
    """--address of a Ray cluster, passed as `address`; None means the local head."""
    return click.option(
        "--address",
        metavar="URL",
        envvar="RAYLORA_ADDRESS",
        show_envvar=True,
        help="Ray dashboard to use, such as http://head:8265. Without it: the local head.",
    )(function)


def tracking_option(function: Decorated) -> Decorated:
    """--tracking-uri and --outputs, passed as `tracking_uri` and `outputs`."""
    with_uri = click.option(
        "--tracking-uri",
        metavar="URI",
        envvar="RAYLORA_TRACKING_URI",
        show_envvar=True,
        help="MLflow server or store. Without it: mlflow.db in the outputs folder.",
    )(function)
    return click.option(
        "--outputs",
        metavar="DIR",
        envvar="RAYLORA_OUTPUTS",
        show_envvar=True,
        default="outputs",
        show_default=True,
        help="Folder that holds runs and the local MLflow.",
    )(with_uri)


def config_argument(function: Decorated) -> Decorated:
    """CONFIG, passed as `config`: the name of a shipped preset or a path."""
    return click.argument("config")(function)


def overrides_argument(function: Decorated) -> Decorated:
    """[KEY=VALUE ...], passed as `overrides`, a tuple of strings."""
    return click.argument("overrides", nargs=-1, metavar="[KEY=VALUE ...]")(function)
