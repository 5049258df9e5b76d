"""What a stopped job leaves in the tracking store, and what is said where that cannot be told."""

from pathlib import Path
from typing import Any, cast

import pytest

from raylora.cli.stopping import stop_job
from raylora.cluster.job_info import JobInfo, JobState
from raylora.cluster.jobs import JobClient
from raylora.config.train_spec import TrackingSpec
from raylora.tracking.location import tracking_uri
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import get_run
from raylora.tracking.spooling.courier import courier_of
from raylora.tracking.spooling.tracked import start

RUN = "20260101-120000-c0ffee"


def client_of(**metadata: str) -> JobClient:
    """Of a cluster with one job, which ends when it is told to."""

    class OneJob:
        def stop(self, job_id: str) -> JobInfo:
            return JobInfo(job_id, JobState.STOPPED, run_id=RUN, metadata=metadata)

    return cast(JobClient, cast(Any, OneJob()))


def test_the_run_of_a_job_that_was_killed_at_once_is_killed(tmp_path: Path) -> None:
    uri = tracking_uri(TrackingSpec(), str(tmp_path))
    spool = tmp_path / "experiments/home/runs" / RUN / "tracking"
    run = start(uri, "home", RUN, "home", spool, params={}, tags={})
    assert run.known_within(30)
    courier = courier_of(uri)
    courier.withdraw(courier.add(spool, lambda: pytest.fail("it is sent")))
    assert get_run(uri, RUN).summary.status is RunStatus.RUNNING
    stop_job(client_of(**{"raylora.outputs": str(tmp_path)}), "job")
    assert get_run(uri, RUN).summary.status is RunStatus.KILLED


def test_what_cannot_be_told_now_is_said_with_its_remedy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = {"raylora.outputs": "/over/there"}
    assert stop_job(client_of(**there), "job").state is JobState.STOPPED
    said = capsys.readouterr().err
    assert "there is no folder /over/there" in said
    assert f"raylora runs sync {RUN} --outputs /over/there" in said
    stop_job(client_of(**there, **{"raylora.tracking": "http://127.0.0.1:9"}), "job")
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err
