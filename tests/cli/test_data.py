"""`raylora data check`: from a config or a file to tables, JSON and an exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raylora.cli import data
from raylora.cli.main import cli
from raylora.config.train_spec import TrainSpec

GOOD = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a row that is there twice, in the current folder."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rows.jsonl"
    file.write_text((json.dumps(GOOD) + "\n") * 2, encoding="utf-8")
    return file


def check(*words: str) -> Result:
    return CliRunner().invoke(cli, ["data", "check", *words])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainSpec, list[str]]]:
    """What the program was asked, instead of running it."""
    calls: list[tuple[TrainSpec, list[str]]] = []

    def run_program(program: str, arguments: list[str], *, needed_for: str) -> dict[str, Any]:
        calls.append((TrainSpec.model_validate_json(arguments[0]), arguments[1:]))
        return {"sources": [], "tokens": [], "leakage": [], "problems": []}

    monkeypatch.setattr(data, "run_program", run_program)
    return calls


def test_a_file_is_checked_under_the_defaults(asked: list[tuple[TrainSpec, list[str]]]) -> None:
    assert check("hub:org/name", "data.max_length=64", "--sample", "5").exit_code == 0
    ((spec, words),) = asked
    assert (spec.data.train, spec.data.validation) == ("hub:org/name", None)
    assert (spec.data.max_length, spec.data.system_prompt) == (64, None)
    assert words == ["--sample=5", "--preview=2"]


@pytest.mark.parametrize(
    ("name", "train"), [("quickstart", "bundled:home_requests/heldout"), ("my.yaml", "rows.jsonl")]
)
def test_a_config_is_checked_as_it_stands(
    asked: list[tuple[TrainSpec, list[str]]], rows: Path, name: str, train: str
) -> None:
    (rows.parent / "my.yaml").write_text("data: {validation: null}", encoding="utf-8")
    result = check(name, f"data.train={train}", "--all")
    assert result.exit_code == 0, result.output
    ((spec, words),) = asked
    assert spec.data.train == train
    assert words[-1] == "--all"
    assert f"raylora plan {name} data.train={train}" in result.stderr


def test_a_wrong_setting_is_exit_5(rows: Path) -> None:
    result = check("rows.jsonl", "data.max_length=1")
    assert result.exit_code == 5
    assert "data.max_length" in result.stderr


def test_what_is_found_in_a_file(rows: Path, tiny_base: Path, capfd) -> None:
    with rows.open("a", encoding="utf-8") as file:
        file.write("{}\n")
    words = ["model.source=path", f"model.id={tiny_base}"]
    result = check("rows.jsonl", *words, "data.bad_rows=skip", "--output", "json")
    assert result.exit_code == 0, capfd.readouterr().err
    report = json.loads(result.stdout)
    (source,) = report["sources"]
    assert (source["rows"], source["bad_rows"], source["duplicates"]["rows"]) == (3, 1, 1)
    assert report["tokens"][0]["preview"][0]["spans"][1]["learnt"]
    assert report["data"]["max_length"] == 512
    assert report["memory_mb"] > 10


def test_the_table_shows_the_same_and_bad_rows_are_exit_6(rows: Path, capfd) -> None:
    with rows.open("a", encoding="utf-8") as file:
        file.write("{}\n")
    result = check("rows.jsonl", "--sample", "0")
    assert result.exit_code == 6
    assert "rows.jsonl:1, rows.jsonl:2" in result.stdout
    assert "rows.jsonl:3" in result.stdout
    assert "rows.jsonl:3: no column 'messages'" in result.stderr
    assert "hint:" in result.stderr


def test_a_source_that_is_not_there_is_exit_6_with_its_name(rows: Path, capfd) -> None:
    assert check("nowhere.jsonl", "--sample", "0").exit_code == 6
    assert "nowhere.jsonl" in capfd.readouterr().err
