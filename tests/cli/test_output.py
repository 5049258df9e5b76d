"""Results on stdout, chatter on stderr."""

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from raylora.cli.output import emit, make_table, next_commands, note


class Colour(StrEnum):
    RED = "red"


@dataclass
class Row:
    path: Path
    colour: Colour
    loss: float


def test_json_of_anything(capsys: pytest.CaptureFixture[str]) -> None:
    emit([Row(Path("a"), Colour.RED, float("nan"))], "json")
    assert json.loads(capsys.readouterr().out) == [{"path": "a", "colour": "red", "loss": None}]


def test_a_table_of_rows_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    emit([{"name": "x" * 300, "steps": 3}, {"name": "y", "done": True}])
    captured = capsys.readouterr()
    assert "x" * 300 in captured.out
    assert captured.out.splitlines()[0].split() == ["name", "steps", "done"]
    assert "yes" in captured.out
    assert "\x1b" not in captured.out


def test_a_given_table_is_used_for_tables_only(capsys: pytest.CaptureFixture[str]) -> None:
    table = make_table(("step", "loss", "tags"), [(1, 0.12345678, []), (20, None, ["a", "b"])])
    emit({"a": 1}, "table", table)
    assert [line.split() for line in capsys.readouterr().out.splitlines()[2:]] == [
        ["1", "0.1235", "-"],
        ["20", "-", "a,", "b"],
    ]
    emit({"a": 1}, "json", table)
    assert json.loads(capsys.readouterr().out) == {"a": 1}


@pytest.mark.parametrize(
    ("data", "shown"), [([], "nothing to show"), (["a", "b"], "a\nb"), ({"a": 1}, "a"), ("x", "x")]
)
def test_tables_of_other_data(
    data: object, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    emit(data)
    assert shown in capsys.readouterr().out


def test_markup_in_data_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    emit([{"name": "[red]x[/red]"}])
    note("[bold]y")
    captured = capsys.readouterr()
    assert "[red]x[/red]" in captured.out
    assert captured.err == "[bold]y\n"


def test_next_commands_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    next_commands(["raylora chat a", "raylora serve down"])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-3:] == ["next:", "  raylora chat a", "  raylora serve down"]
