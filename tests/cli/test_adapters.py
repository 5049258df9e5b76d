import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raylora.cli import adapters
from raylora.cli.main import cli
from raylora.config.gate_spec import GateSpec
from raylora.config.train_spec import TrackingSpec
from raylora.tracking.adapters.promotion import GATE_TAG
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.location import tracking_uri
from raylora.tracking.runs import RunStatus, open_run


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
        (("verify", "else/where"), "no folder else/where"),
        (("rollback", "home", "--alias", "champoin"), "home@champion"),
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

    def run_program(program: str, arguments: list[str], *, needed_for: str) -> dict[str, Any]:
        asked.append((program, *arguments))
        return {"r": 16, "lineage": {"base": {"id": "tiny"}}}

    monkeypatch.setattr(adapters, "run_program", run_program)
    return asked


def test_verifies_a_directory(programs: list[tuple[str, ...]], tmp_path: Path) -> None:
    result = raylora("adapters", "verify", str(tmp_path), "--output", "json")
    assert json.loads(result.stdout) == {"r": 16, "lineage": {"base": {"id": "tiny"}}}
    table = raylora("adapters", "verify", str(tmp_path)).stdout
    assert "16" in table and "tiny" not in table
    assert programs[:1] == [("raylora.jobs.verify", str(tmp_path))]


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
