"""`raylora cluster`: what is up, and what nothing being up looks like."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from raylora.cli.main import cli
from raylora.cluster import head
from raylora.cluster.connect import Cluster
from raylora.config.train_spec import TrackingSpec
from raylora.errors import NotFound
from raylora.tracking.location import tracking_uri
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import get_run


def raylora(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


@pytest.mark.ray
def test_up_reuses_what_is_up_and_status_says_what_it_has(local_cluster: Cluster) -> None:
    up = raylora("cluster", "up", "--output", "json")
    assert up.exit_code == 0, up.output
    assert "was up already" in up.stderr
    facts = json.loads(up.stdout)
    assert facts["dashboard"] == local_cluster.dashboard_url
    assert facts["capacity"]["CPU"] >= 1
    named = raylora("cluster", "status", "--address", local_cluster.dashboard_url)
    assert local_cluster.dashboard_url in named.stdout
    assert "GB memory" in named.stdout


def test_nothing_up_is_exit_3_for_status_and_fine_for_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    assert raylora("cluster", "status").exit_code == 3
    down = raylora("cluster", "down", "--output", "json")
    assert down.exit_code == 0
    assert json.loads(down.stdout) == {"stopped": False, "interrupted_jobs": []}


@pytest.fixture
def own_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home of its own, so that the suite's cluster is left alone."""
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
    yield
    head.stop()


@pytest.mark.ray
@pytest.mark.slow
def test_down_leaves_no_run_that_is_called_running(
    own_head: None, tiny_base: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    row = {"prompt": "on", "completion": "yes"}
    rows.write_text(4 * f"{json.dumps(row)}\n", encoding="utf-8")
    outputs = str(tmp_path / "outputs")
    spec = {
        "name": "endless",
        "outputs": outputs,
        "model": {"source": "path", "id": str(tiny_base), "name": "tiny", "dtype": "fp32"},
        "data": {"train": str(rows)},
        "training": {"max_steps": 1_000_000, "global_batch_size": 2, "micro_batch_size": 2},
    }
    config = tmp_path / "endless.yaml"
    config.write_text(yaml.safe_dump(spec), encoding="utf-8")
    submitted = raylora("submit", str(config), "--detach", "--output", "json")
    assert submitted.exit_code == 0, submitted.output
    run_id = json.loads(submitted.stdout)["run_id"]
    uri = tracking_uri(TrackingSpec(), outputs)
    assert within(60, lambda: "loss" in get_run(uri, run_id).metrics)

    down = raylora("cluster", "down", "--output", "json")

    assert down.exit_code == 0, down.output
    assert json.loads(down.stdout)["stopped"] is True
    (job_id,) = json.loads(down.stdout)["interrupted_jobs"]
    assert f"raylora jobs resume {job_id}" in down.stderr
    assert get_run(uri, run_id).summary.status is RunStatus.KILLED


def within(seconds: float, seen: Callable[[], bool]) -> bool:
    """Whether it is seen in this time; a run that is not there yet is not seen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(NotFound):
            if seen():
                return True
        time.sleep(0.5)
    return False
