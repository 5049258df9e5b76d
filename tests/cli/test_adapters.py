import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raylora.cli import adapters
from raylora.cli.main import cli
from raylora.config.train_spec import TrackingSpec
from raylora.tracking.location import tracking_uri
from raylora.tracking.promotion import promote
from raylora.tracking.registry import Registry
from raylora.tracking.runs import RunStatus, open_run


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An adapter with two versions, the first of them champion."""
    folder = tmp_path_factory.mktemp("adapters")
    uri = tracking_uri(TrackingSpec(), str(folder))
    registry = Registry(uri)
    for number in (1, 2):
        run = open_run(uri, "home", f"run-{number}", "home", params={}, tags={})
        files = tmp_path_factory.mktemp("files")
        (files / "adapter_model.safetensors").write_bytes(bytes(number))
        version = registry.register("home", run, files, tags={"raylora.rank": "16"})
        promote(registry, str(version), only_if_unset=True)
        run.finish(RunStatus.FINISHED)
    return str(folder)


def raylora(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_lists_adapters(outputs: str) -> None:
    table = raylora("adapters", "list", "--outputs", outputs)
    assert table.exit_code == 0, table.stderr
    assert "champion -> 1" in table.stdout
    (adapter,) = json.loads(raylora("adapters", "list", "--outputs", outputs, "-o", "json").stdout)
    assert adapter["name"] == "home"
    assert adapter["newest"] == 2
    assert adapter["aliases"] == {"champion": 1}


def test_shows_what_a_name_means(outputs: str) -> None:
    table = raylora("adapters", "show", "home", "--outputs", outputs)
    assert "home@1" in table.stdout
    assert "raylora.rank" in table.stdout
    found = json.loads(
        raylora("adapters", "show", "home@2", "--outputs", outputs, "-o", "json").stdout
    )
    assert found["version"]["version"] == 2
    assert found["version"]["run_id"] == "run-2"
    assert found["versions"] == [1, 2]
    assert found["files"] == {"adapter_model.safetensors": 2}


def test_promotes_another_alias(outputs: str) -> None:
    command = ("adapters", "promote", "home@2", "--alias", "canary", "--outputs", outputs)
    decision = json.loads(raylora(*command, "--output", "json").stdout)
    assert (decision["from_version"], decision["to_version"]) == (None, 2)
    assert decision["moved"]
    again = raylora(*command)
    assert again.exit_code == 0
    assert "already" in again.stdout
    assert f"raylora adapters show home@canary --outputs {outputs}" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("show", "hom"), "home"),
        (("show", "home@9"), "home@2"),
        (("show", "home@v2"), "@2"),
        (("promote", "home"), "home@NUMBER"),
        (("promote", "home@2", "--alias", "7"), "version"),
        (("verify", "elsewhere"), "home"),
    ],
)
def test_what_cannot_be_is_exit_5_with_a_remedy(
    outputs: str, arguments: tuple[str, ...], hint: str
) -> None:
    result = raylora("adapters", *arguments, "--outputs", outputs)
    assert result.exit_code == 5, result.output
    assert hint in result.stderr


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Programs that were asked for, instead of running them."""
    asked: list[tuple[str, ...]] = []

    def run_program(program: str, arguments: list[str], *, needed_for: str) -> dict[str, int]:
        asked.append((program, *arguments))
        return {"r": 16}

    monkeypatch.setattr(adapters, "run_program", run_program)
    return asked


def test_verifies_a_directory(programs: list[tuple[str, ...]], tmp_path: Path) -> None:
    result = raylora("adapters", "verify", str(tmp_path), "--output", "json")
    assert json.loads(result.stdout) == {"r": 16}
    assert programs == [("raylora.jobs.verify", str(tmp_path))]


def test_verifies_a_registered_version(
    outputs: str,
    programs: list[tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path))
    result = raylora("adapters", "verify", "home@2", "--outputs", outputs)
    assert result.exit_code == 0, result.output
    ((_, directory),) = programs
    assert Path(directory).is_relative_to(tmp_path)
    assert (Path(directory) / "adapter_model.safetensors").read_bytes() == bytes(2)
