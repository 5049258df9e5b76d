"""What commands print: results on stdout as a table or JSON, chatter on stderr."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import click
from pydantic_core import to_json, to_jsonable_python
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

MISSING = "missing"
"""In place of a figure that is not there, which is never zero."""
PIPE_WIDTH = 1000
"""Columns for a table that goes to a file or pipe: wide enough that no cell is wrapped or cut."""


def emit(
    data: object,
    output_format: Literal["table", "json"] | str = "table",
    table: RenderableType | Callable[[], RenderableType] | None = None,
) -> None:
    """Print a result on stdout.

    data: anything of dicts, lists, dataclasses, specs, enums, paths and dates; printed as it is
    with json (NaN and infinities as null). table: what to show otherwise, or a function that
    makes it; without one, a list of mappings becomes a table and a mapping becomes two columns.
    """
    if output_format == "json":
        click.echo(to_json(data, indent=2, inf_nan_mode="null"))
        return
    shown = table() if callable(table) else table
    result_console().print(shown if shown is not None else _table_of(to_jsonable_python(data)))


def make_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None
) -> Table:
    """A plain table; None is shown as -, NaN as missing, numbers are aligned to the right."""
    listed = [list(row) for row in rows]
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, title=title, title_justify="left"
    )
    for index, column in enumerate(columns):
        numeric = bool(listed) and all(_is_number(row[index]) for row in listed)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*(_cell(value) for value in row))
    return table


def note(text: str) -> None:
    """One line of chatter on stderr."""
    chatter_console().print(Text(text), soft_wrap=True)


def next_commands(commands: Sequence[str]) -> None:
    """The commands to type next, one a line, each working as printed."""
    console = chatter_console()
    console.print(Text("\nnext:", style="bold"))
    for command in commands:
        console.print(Text(f"  {command}"), soft_wrap=True)


def result_console() -> Console:
    """Rich console on stdout; no colour where NO_COLOR is set or stdout is no terminal."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def chatter_console() -> Console:
    """Rich console on stderr."""
    return Console(stderr=True, highlight=False)


def _table_of(data: Any) -> RenderableType:
    if isinstance(data, Mapping):
        return make_table(("key", "value"), data.items())
    if isinstance(data, list) and data and all(isinstance(row, Mapping) for row in data):
        columns = list(dict.fromkeys(key for row in data for key in row))
        return make_table(columns, ([row.get(column) for column in columns] for row in data))
    if isinstance(data, list):
        return Text("\n".join(str(item) for item in data) or "nothing to show")
    return Text(str(data))


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: object) -> RenderableType:
    match value:
        case Text() | Table():
            return value
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return MISSING if math.isnan(value) else f"{value:.4g}"
        case list() | tuple():
            return Text(", ".join(str(item) for item in value) or "-")
        case _:
            return Text(str(value))
