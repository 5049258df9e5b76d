"""`raylora data`: look at rows before training on them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from raylora.cli import data_view
from raylora.cli.child import run_program
from raylora.cli.options import output_option, overrides_argument
from raylora.cli.output import emit, next_commands
from raylora.config.compose import load_train
from raylora.config.presets import Kind, presets
from raylora.config.train_spec import TrainSpec
from raylora.errors import InvalidData

CHECK = "raylora.jobs.check_data"
YAML = (".yaml", ".yml")


@click.group(name="data")
def command() -> None:
    """Look at rows before training on them."""


@command.command(name="check")
@click.argument("source", metavar="CONFIG_OR_FILE")
@overrides_argument
@click.option(
    "--sample",
    default=2000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Rows to tokenise, drawn at random; 0 loads no tokenizer.",
)
@click.option("--all", "every_row", is_flag=True, help="Tokenise and compare every row.")
@click.option(
    "--preview",
    default=2,
    show_default=True,
    type=click.IntRange(min=0),
    help="Rows whose tokens and mask are shown.",
)
@output_option
def check_command(
    source: str,
    overrides: tuple[str, ...],
    sample: int,
    every_row: bool,
    preview: int,
    output: str,
) -> None:
    """Show what training would see of the rows, and whether it would take them.

    CONFIG_OR_FILE is a preset or YAML file of a training, or the data itself: a file, glob,
    folder, fsspec URL, hub:ORG/NAME or bundled:NAME/SPLIT. KEY=VALUE changes one value, such as
    data.max_length=1024. Ends with exit code 6 where training would stop at a row.
    """
    spec = _spec(source, overrides)
    arguments = [spec.model_dump_json(), f"--sample={sample}", f"--preview={preview}"]
    arguments += ["--all"] * every_row
    found = run_program(CHECK, arguments, needed_for="checking data")
    report = {"model": spec.model.name, "data": spec.data, **found}
    emit(report, output, lambda: data_view.tables(found, spec.data))
    if found["problems"]:
        raise _first(found["problems"])
    if output == "table" and _is_config(source):
        next_commands([f"raylora plan {' '.join((source, *overrides))}"])


def _spec(source: str, overrides: Sequence[str]) -> TrainSpec:
    if _is_config(source):
        return load_train(source, overrides).spec
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "data-check.yaml"
        data = {"train": source, "validation": None}
        config.write_text(yaml.safe_dump({"data": data}), encoding="utf-8")
        return load_train(str(config), overrides).spec


def _is_config(source: str) -> bool:
    return source.endswith(YAML) or source.removeprefix("train/") in presets(Kind.TRAIN)


def _first(problems: Sequence[dict[str, Any]]) -> InvalidData:
    first, *others = problems
    more = f" (and {len(others)} more, above)" if others else ""
    return InvalidData(
        first["message"] + more, file=first["file"], line=first["line"], hint=first["hint"]
    )
