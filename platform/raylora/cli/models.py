"""`raylora models`: list, fetch and convert base models, through the program that knows them.

    raylora.jobs.models list                        every model in the cache
    raylora.jobs.models fetch MODEL                 MODEL: a ModelSpec as JSON
    raylora.jobs.models convert GGUF DIRECTORY      a GGUF file as a directory of safetensors

Each prints path, id, revision and name of a model as JSON, `list` a list of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from raylora.cli.child import run_program
from raylora.cli.options import output_option, overrides_argument
from raylora.cli.output import emit, make_table, next_commands
from raylora.config.compose import load_train

MODELS = "raylora.jobs.models"
COLUMNS = ("id", "name", "revision", "path")


@click.group(name="models")
def command() -> None:
    """List, fetch and convert base models."""


@command.command(name="list")
@output_option
def list_command(output: str) -> None:
    """Base models in the cache of this machine."""
    models = run_program(MODELS, ["list"], needed_for="looking into the model cache")
    emit(models, output, lambda: _table(models))
    if not models and output == "table":
        next_commands(["raylora models fetch quickstart"])


@command.command(name="fetch")
@click.argument("config")
@overrides_argument
@output_option
def fetch_command(config: str, overrides: tuple[str, ...], output: str) -> None:
    """Bring the base model of CONFIG into the cache, so that a job finds it there.

    CONFIG is the name of a shipped preset or a path; model.id=... names another model.
    """
    model = load_train(config, overrides).spec.model
    fetched = run_program(
        MODELS, ["fetch", model.model_dump_json()], needed_for="fetching a base model"
    )
    emit(fetched, output, lambda: _table([fetched]))


@command.command(name="convert")
@click.argument("gguf", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path))
@output_option
def convert_command(gguf: Path, directory: Path, output: str) -> None:
    """Write a GGUF file as bf16 safetensors into DIRECTORY, a base for model.source=path."""
    converted = run_program(
        MODELS, ["convert", str(gguf), str(directory)], needed_for="converting a base model"
    )
    emit(converted, output, lambda: _table([converted]))
    if output == "table":
        model = f"model.id={converted['path']} model.name={converted['name']}"
        next_commands([f"raylora plan lora model=local {model}"])


def _table(models: Sequence[Mapping[str, Any]]) -> Table:
    return make_table(COLUMNS, ([model[column] for column in COLUMNS] for model in models))
