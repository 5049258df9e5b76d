"""`raylora cluster`: what is up, and what nothing being up looks like."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raylora.cli.main import cli
from raylora.cluster.connect import Cluster


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
