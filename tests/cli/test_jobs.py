"""`raylora jobs` and `raylora cluster` on a real cluster, through the commands a user types."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raylora.cli.main import cli
from raylora.cluster import bundle, job_record
from raylora.cluster.bundle import Bundle
from raylora.cluster.connect import Cluster
from raylora.cluster.job_record import JobRecord
from raylora.cluster.jobs import JobClient

PROBE = """
    import signal, sys, time
    from raylora.cluster.events import StageEvent, emit
    emit(StageEvent("train", sys.argv[1]))
    print("a line")
    time.sleep(float(sys.argv[2]))
"""
RUN = "20260101-120000-c0ffee"


def raylora(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def listed(*words: str) -> Any:
    result = raylora(*words, "--output", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def probe(tmp_path: Path) -> Bundle:
    (tmp_path / "probe.py").write_text(textwrap.dedent(PROBE), encoding="utf-8")
    return Bundle(tmp_path, bundle.build("{}\n").package)


@pytest.mark.ray
def test_a_job_is_listed_shown_stopped_and_resumed(local_cluster: Cluster, probe: Bundle) -> None:
    client = JobClient(local_cluster)
    args = ("tiny", "600")
    client.submit("probe", args, probe, name="mine", run_id=RUN)
    record = JobRecord(
        RUN, "mine", "probe", ("tiny", "0"), str(probe.working_dir), str(probe.package), "/out"
    )
    job_record.write(record)
    (row,) = [row for row in listed("jobs", "list") if row["job_id"] == RUN]
    assert (row["name"], row["run_id"], row["program"]) == ("mine", RUN, "probe")
    assert "mine" in raylora("jobs", "list").stdout

    running = raylora("jobs", "status", RUN)
    assert f"raylora jobs stop {RUN}" in running.stderr
    assert RUN in listed("cluster", "status")["running_jobs"]
    refused = raylora("jobs", "resume", RUN)
    assert refused.exit_code == 1
    assert "still running" in refused.stderr

    stopped = raylora("jobs", "stop", RUN, "--output", "json")
    assert json.loads(stopped.stdout)["state"] == "STOPPED"
    assert f"raylora jobs resume {RUN}" in stopped.stderr
    assert raylora("jobs", "logs", "-f", RUN).exit_code == 1

    resumed = raylora("jobs", "resume", RUN)
    assert resumed.exit_code == 0, resumed.output
    assert listed("jobs", "status", f"{RUN}-r1")["run_id"] == RUN
    log = raylora("jobs", "logs", "-f", f"{RUN}-r1")
    assert log.exit_code == 0
    assert {"train: tiny", "a line"} <= set(log.stdout.splitlines())
    assert '"stage": "train"' in raylora("jobs", "logs", "--raw", f"{RUN}-r1").stdout


@pytest.mark.ray
def test_a_job_that_does_not_exist_is_exit_5(local_cluster: Cluster) -> None:
    for words in (("status",), ("logs",), ("logs", "-f"), ("stop",), ("resume",)):
        assert raylora("jobs", *words, "nobody").exit_code == 5


def test_without_a_cluster_nothing_is_started_to_list_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    result = raylora("jobs", "list")
    assert result.exit_code == 3
    assert "raylora cluster up" in result.stderr
