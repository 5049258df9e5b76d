import json
import socket
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raylora.cli.main import cli
from raylora.config.train_spec import TrackingSpec
from raylora.tracking.location import tracking_uri
from raylora.tracking.runs import RunStatus, open_run
from raylora.tracking.spooling.spooled import BIRTH, Birth, attach


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two finished runs; the second lacks a metric."""
    folder = tmp_path_factory.mktemp("runs")
    uri = tracking_uri(TrackingSpec(), str(folder))
    for name, r, metrics in (
        ("one", 8, {"loss": 0.5, "heldout_exact_match": 0.9}),
        ("two", 16, {"loss": 0.25}),
    ):
        run = open_run(uri, "home", f"run-{name}", name, params={"lora": {"r": r}}, tags={})
        run.log_metrics({"loss": 2.0}, 1)
        run.log_metrics(metrics, 2)
        run.log_dataset("home/train", "bundled:home/train", "d" * 64, 600, "training")
        run.log_dict({"lora": {"r": r}}, "spec.yaml")
        run.finish(RunStatus.FINISHED)
    return str(folder)


def raylora(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_lists_runs_with_key_metrics(outputs: str) -> None:
    result = raylora("runs", "list", "--outputs", outputs)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    (header,) = (line for line in lines if "status" in line)
    assert "loss" in header
    assert "heldout_exact_match" in header
    two, one = (line.split() for line in lines if "FINISHED" in line)
    assert (two[0], one[0]) == ("run-two", "run-one")
    assert "0.5" in one
    assert "0.9" in one
    assert two[-3:] == ["0.25", "-", "-"]
    assert f"raylora runs show run-two --outputs {outputs}" in result.stderr


def test_lists_runs_as_json(outputs: str) -> None:
    result = raylora("runs", "list", "--outputs", outputs, "--limit", "1", "--output", "json")
    (run,) = json.loads(result.stdout)
    assert run["run_id"] == "run-two"
    assert run["status"] == "FINISHED"
    assert run["metrics"] == {"loss": 0.25}
    assert run["duration_s"] >= 0
    assert result.stderr == ""


def test_shows_everything_about_a_run(outputs: str) -> None:
    shown = raylora("runs", "show", "run-one", "--outputs", outputs)
    assert shown.exit_code == 0, shown.stderr
    for part in ("lora.r", "heldout_exact_match", "home/train", "spec.yaml", "raylora.run_id"):
        assert part in shown.stdout
    run = json.loads(raylora("runs", "show", "run-one", "--outputs", outputs, "-o", "json").stdout)
    assert run["summary"]["name"] == "one"
    assert run["metrics"]["loss"] == {
        "last": 0.5,
        "min": 0.5,
        "max": 2.0,
        "last_step": 2,
        "points": 2,
    }
    assert run["datasets"][0]["rows"] == 600
    assert run["artifacts"] == ["spec.yaml"]


def test_a_comparison_calls_a_missing_metric_missing(outputs: str) -> None:
    command = ("runs", "compare", "run-one", "run-two", "--outputs", outputs)
    table = raylora(*command)
    assert table.exit_code == 0, table.stderr
    rows = {words[0]: words[1:] for words in map(str.split, table.stdout.splitlines()) if words}
    assert rows["lora.r"] == ["8", "16"]
    assert rows["heldout_exact_match"] == ["0.9", "missing"]
    found = json.loads(raylora(*command, "--output", "json").stdout)
    assert found["metrics"]["heldout_exact_match"] == [0.9, None]


def test_a_comparison_needs_two_runs(outputs: str) -> None:
    assert raylora("runs", "compare", "run-one", "--outputs", outputs).exit_code == 2


def test_an_unknown_run_is_exit_5_and_names_the_nearest(outputs: str) -> None:
    result = raylora("runs", "show", "run-onne", "--outputs", outputs)
    assert result.exit_code == 5
    assert "run-one" in result.stderr


def test_where_nothing_was_tracked_nothing_is_made(tmp_path: Path) -> None:
    result = raylora("runs", "list", "--outputs", str(tmp_path / "none"))
    assert result.exit_code == 5
    assert "nothing has been tracked" in result.stderr
    assert not (tmp_path / "none").exists()


def test_a_dead_server_is_exit_3_within_ten_seconds() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        result = raylora("runs", "list", "--tracking-uri", uri)
        assert time.monotonic() - began < 10
    assert result.exit_code == 3
    assert uri in result.stderr


def test_sync_sends_what_a_job_left(tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "home" / "runs" / "run-late" / "tracking"
    folder.mkdir(parents=True)
    uri = tracking_uri(TrackingSpec(), str(tmp_path))
    birth = Birth(uri, "home", "run-late", "late", "", 1_767_268_800_000)
    (folder / BIRTH).write_text(json.dumps(asdict(birth)), encoding="utf-8")
    killed = attach(folder, "run-late")
    for step in (1, 2):
        killed.log_metrics({"loss": 1 / step}, step)
    killed.close()

    result = raylora("runs", "sync", "--all", "--outputs", str(tmp_path), "-o", "json")
    assert result.exit_code == 0, result.stderr
    (synced,) = json.loads(result.stdout)
    assert (synced["run_id"], synced["status"], synced["points"]) == ("run-late", "KILLED", 2)
    shown = raylora("runs", "show", "run-late", "--outputs", str(tmp_path), "-o", "json")
    assert json.loads(shown.stdout)["metrics"]["loss"]["points"] == 2
    again = raylora("runs", "sync", "run-late", "--outputs", str(tmp_path))
    assert again.exit_code == 0 and "sent already" in again.stderr


def test_sync_wants_to_know_what(tmp_path: Path) -> None:
    assert raylora("runs", "sync").exit_code == 2
    assert raylora("runs", "sync", "--all", "a-run").exit_code == 2
    unknown = raylora("runs", "sync", "a-run", "--outputs", str(tmp_path))
    assert unknown.exit_code == 5
