import importlib.util
from pathlib import Path

import click
import pytest

from raylora.cli import child
from raylora.errors import MissingExtra


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a module that a child process can run, and gives its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(code: str) -> str:
        (tmp_path / "a_program.py").write_text(code, encoding="utf-8")
        return "a_program"

    return make


def test_gives_what_the_program_printed(program) -> None:
    name = program("import json, sys; print(json.dumps({'arguments': sys.argv[1:]}))")
    found = child.run_program(name, ["a b", "--x"], needed_for="a test")
    assert found == {"arguments": ["a b", "--x"]}


@pytest.mark.parametrize(("code", "expected"), [("5", 5), ("'reason'", 1)])
def test_ends_as_the_program_ended_and_lets_it_say_why(
    program, capfd: pytest.CaptureFixture[str], code: str, expected: int
) -> None:
    name = program(f"import sys; sys.stderr.write('because\\n'); sys.exit({code})")
    with pytest.raises(click.exceptions.Exit) as caught:
        child.run_program(name, [], needed_for="a test")
    assert caught.value.exit_code == expected
    assert "because" in capfd.readouterr().err


def test_a_file_in_the_current_folder_takes_no_package_s_place(
    program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "json.py").write_text("raise SystemExit('the wrong json')", encoding="utf-8")
    monkeypatch.chdir(here)
    name = program("import json; print(json.dumps(1))")
    assert child.run_program(name, [], needed_for="a test") == 1


def test_a_missing_extra_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(MissingExtra) as caught:
        child.run_program("raylora.jobs.verify", ["x"], needed_for="checking an adapter")
    assert caught.value.hint == "pip install 'raylora[train]'"


def test_a_program_needs_the_packages_that_its_command_names(
    program, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = program("print(1)")
    looked_for: list[str] = []

    def find(package: str) -> object:
        looked_for.append(package)
        return object()

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert child.run_program(name, [], needed_for="a report", packages=["plotly"]) == 1
    assert looked_for == ["plotly"]
