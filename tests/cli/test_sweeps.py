import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.stored_sweep import BEST, FAILED, RATES, STEPS, SWEEP, loss_at, store_sweep

from raylora.cli import jobs, sweeps
from raylora.cli.main import cli
from raylora.cluster.job_info import JobInfo, JobState
from raylora.cluster.submission import SEARCH


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    """A finished sweep of eight trials."""
    folder = tmp_path_factory.mktemp("sweeps")
    store_sweep(folder, empty_store)
    return str(folder)


def raylora(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def found(*arguments: str) -> Any:
    result = raylora(*arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_lists_sweeps_with_what_they_search_and_found(outputs: str) -> None:
    result = raylora("sweeps", "list", "--outputs", outputs)
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stdout.splitlines() if SWEEP in line]
    for part in ("FINISHED", "loss (min)", "8/8: 6 finished, 1 stopped, 1 failed", "home@1"):
        assert part in line
    assert f"raylora sweeps status {SWEEP} --outputs {outputs}" in result.stderr
    (sweep,) = found("sweeps", "list", "--outputs", outputs)
    assert (sweep["run_id"], sweep["best_trial"]) == (SWEEP, BEST)
    assert sweep["states"] == {"finished": 6, "stopped": 1, "failed": 1}


def test_shows_a_sweep_with_its_trials_ranked(outputs: str) -> None:
    result = raylora("sweeps", "status", SWEEP, "--outputs", outputs)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("t0")]
    assert [row[0] for row in rows] == [BEST, "t07", "t06", "t05", "t04", "t02", "t01", FAILED]
    assert rows[0][1:7] == ["finished", "4", "0.968", "32", "64", "0.001"]
    assert "the loss is NaN" in " ".join(rows[-1])
    line = "raylora submit quickstart lora.r=32 training.learning_rate=0.001"
    assert f"the best again:  {line}" in result.stdout
    assert f"raylora sweeps report {SWEEP} --outputs {outputs}" in result.stderr

    told = found("sweeps", "status", SWEEP, "--outputs", outputs)
    assert told["best"] == {
        "trial": BEST,
        "value": pytest.approx(loss_at(STEPS, 32, RATES[1])),
        "submit": line,
    }
    assert told["sweep"]["status"] == "FINISHED"
    assert [trial["name"] for trial in told["trials"]] == [row[0] for row in rows]


def test_an_unknown_sweep_is_exit_5_and_names_the_nearest(outputs: str) -> None:
    result = raylora("sweeps", "status", "20260101-120000-5eeeef", "--outputs", outputs)
    assert result.exit_code == 5
    assert SWEEP in result.stderr


def test_reports_as_tables_and_as_a_page(
    outputs: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    result = raylora("sweeps", "report", SWEEP, "--outputs", outputs, "--html", str(page))
    assert result.exit_code == 0, result.output + capfd.readouterr().err
    assert "importance: share of the variation of loss, 6 trials at step 4" in result.stdout
    assert "lora.r, lora.lora_alpha" in result.stdout
    assert "Pareto front: loss against adapter bytes" in result.stdout
    assert "the best again:  raylora submit quickstart" in result.stdout
    assert f"page: {page}" in result.stderr
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")


class Client:
    """The jobs of a cluster."""

    def __init__(self, *jobs: JobInfo) -> None:
        self.jobs = list(jobs)

    def list(self) -> Sequence[JobInfo]:
        return self.jobs

    def stop(self, job_id: str) -> JobInfo:
        return JobInfo(job_id, JobState.STOPPED, run_id=SWEEP, program=SEARCH)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Client:
    """Another training runs, and so does the sweep, resumed once."""
    client = Client(
        JobInfo("training", JobState.RUNNING, run_id="training", program="raylora.jobs.finetune"),
        JobInfo(f"{SWEEP}-r1", JobState.RUNNING, run_id=SWEEP, program=SEARCH),
        JobInfo(SWEEP, JobState.FAILED, run_id=SWEEP, program=SEARCH),
    )

    def connect(address: str | None, start: bool = True) -> None:
        assert not start

    def jobs_of(cluster: None) -> Client:
        return client

    monkeypatch.setattr(sweeps, "connect", connect)
    monkeypatch.setattr(sweeps, "JobClient", jobs_of)
    return client


@pytest.mark.parametrize("name", [SWEEP, f"{SWEEP}-r1"])
def test_stops_the_job_that_runs_the_sweep_and_says_how_to_go_on(
    cluster: Client, name: str
) -> None:
    result = raylora("sweeps", "stop", name, "-o", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "run_id": SWEEP,
        "job_id": f"{SWEEP}-r1",
        "state": "STOPPED",
    }
    assert f"raylora sweeps resume {SWEEP}" in result.stderr


def test_what_is_no_sweep_here_is_not_stopped(cluster: Client) -> None:
    result = raylora("sweeps", "stop", "training")
    assert result.exit_code == 5
    assert "no sweep 'training'" in result.stderr


@pytest.mark.parametrize(
    ("state", "remedy"), [(JobState.FAILED, "resume"), (JobState.SUCCEEDED, "report")]
)
def test_a_sweep_that_has_ended_is_not_stopped(
    cluster: Client, state: JobState, remedy: str
) -> None:
    cluster.jobs = [JobInfo(SWEEP, state, run_id=SWEEP, program=SEARCH)]
    result = raylora("sweeps", "stop", SWEEP)
    assert result.exit_code == 1
    assert f"ended {state}" in result.stderr
    assert f"raylora sweeps {remedy} {SWEEP}" in result.stderr


def test_resume_goes_on_as_jobs_resume_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def go_on(*given: Any) -> None:
        asked.append(given)

    monkeypatch.setattr(jobs, "go_on", go_on)
    assert raylora("sweeps", "resume", SWEEP, "--detach", "-o", "json").exit_code == 0
    assert raylora("jobs", "resume", SWEEP, "--detach", "-o", "json").exit_code == 0
    assert asked == [(SWEEP, True, None, "json")] * 2
