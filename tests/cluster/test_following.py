"""A follower loses neither lines nor patience: the job client over a network that fails."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from raylora.cluster import jobs
from raylora.cluster.connect import Cluster
from raylora.cluster.jobs import JobClient
from raylora.cluster.log_lines import Lines
from raylora.errors import RayloraError, Unreachable

LOG = "first\nsecond\nthird line\nrest"


class FlakySdk:
    """Gives LOG in pieces; breaks off where the plan says so; ended only after all was given."""

    def __init__(self, *breaks: int | None, answers: bool = True) -> None:
        self.breaks = list(breaks)
        self.answers = answers
        self.log_is_gone = False
        self.submitted: list[str] = []
        self.failures: list[RayloraError] = []

    def tail(self, job_id: str, *, skip: int) -> Iterator[str]:
        until = self.breaks.pop(0) if self.breaks else 0
        for start in range(skip, len(LOG if until is None else LOG[:until]), 4):
            yield LOG[start : min(start + 4, until or len(LOG))]
        if until is not None:
            raise Unreachable("gone")

    def get_job_logs(self, job_id: str) -> str:
        if self.log_is_gone:
            raise RayloraError("the node is gone")
        return LOG

    def get_job_info(self, job_id: str) -> Any:
        if not self.answers:
            raise Unreachable("gone")
        return SimpleNamespace(
            submission_id=job_id,
            status=SimpleNamespace(value="RUNNING" if self.breaks else "SUCCEEDED"),
            metadata=None,
            message=None,
            driver_exit_code=None,
            start_time=None,
            end_time=None,
        )

    def submit_job(self, *, submission_id: str, **_: Any) -> str:
        self.submitted.append(submission_id)
        if self.failures:
            raise self.failures.pop(0)
        return submission_id


@pytest.fixture
def client_on(monkeypatch: pytest.MonkeyPatch):
    """Make a client over a given SDK, and let its waiting take no time."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(jobs.time, "sleep", sleep)
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])

    def make(sdk: FlakySdk) -> JobClient:
        monkeypatch.setattr("raylora.cluster.sdk.LimitedClient", lambda _: sdk)
        return JobClient(Cluster("http://127.0.0.1:1", None, is_local=False))

    return make


@pytest.mark.parametrize(
    "breaks", [(None,), (3, None), (6, 6, 20, None), (0, 0, 0, len(LOG), None)]
)
def test_every_line_comes_once_however_often_the_connection_breaks(client_on, breaks) -> None:
    assert list(client_on(FlakySdk(*breaks)).follow("job")) == LOG.split("\n")


def test_a_stream_that_ends_before_the_log_does_loses_nothing(client_on) -> None:
    sdk = FlakySdk()
    sdk.tail = lambda job_id, *, skip: iter([LOG[:9]])
    assert list(client_on(sdk).follow("job")) == LOG.split("\n")
    sdk.log_is_gone = True
    assert list(client_on(sdk).follow("job")) == ["first", "sec"]


def test_a_network_that_stays_silent_is_an_error_after_the_limit(client_on) -> None:
    sdk = FlakySdk(9, *([9] * 1000))
    client = client_on(sdk)
    seen: list[str] = []
    with pytest.raises(Unreachable):
        for line in client.follow("job"):
            seen.append(line)
            sdk.answers = False
    assert seen == ["first"]
    assert 1000 - len(sdk.breaks) == pytest.approx(jobs.RETRY_S, abs=3)


def test_a_job_that_says_nothing_for_long_is_followed_however_often_that_is_cut(client_on) -> None:
    sdk = FlakySdk(9, *([9] * 20), None)
    tail = sdk.tail

    def cut_after_a_while(job_id: str, *, skip: int) -> Iterator[str]:
        jobs.time.sleep(jobs.RETRY_S / 2)
        yield from tail(job_id, skip=skip)

    sdk.tail = cut_after_a_while
    assert list(client_on(sdk).follow("job")) == LOG.split("\n")


def test_lines_are_joined_over_chunks() -> None:
    lines = Lines()
    fed = [list(lines.feed(chunk)) for chunk in ("a", "b\nc", "\n\n", "d")]
    assert fed == [[], ["ab"], ["c", ""], []]
    assert lines.characters == 7
    assert list(lines.rest()) == ["d"]
    assert list(lines.rest()) == []


def files() -> Any:
    return SimpleNamespace(working_dir="w", package="p")


def test_a_head_that_cannot_take_jobs_yet_is_asked_again(client_on) -> None:
    sdk = FlakySdk(None)
    sdk.failures = [RayloraError("answered 500: No available agent to submit job")] * 3
    assert client_on(sdk).submit("m", [], files(), job_id="x") == "x"
    assert sdk.submitted == ["x"] * 4


def test_other_refusals_are_not_repeated(client_on) -> None:
    sdk = FlakySdk(None)
    sdk.failures = [RayloraError("answered 400: nonsense")]
    with pytest.raises(RayloraError, match="nonsense"):
        client_on(sdk).submit("m", [], files(), job_id="x")
    assert sdk.submitted == ["x"]


def test_a_lost_answer_to_a_submission_is_no_second_job(client_on) -> None:
    sdk = FlakySdk(None)
    sdk.failures = [Unreachable("lost")]
    assert client_on(sdk).submit("m", [], files(), job_id="x") == "x"
    assert sdk.submitted == ["x"]
    sdk = FlakySdk(None, answers=False)
    sdk.failures = [Unreachable("lost")]
    with pytest.raises(Unreachable):
        client_on(sdk).submit("m", [], files(), job_id="x")
