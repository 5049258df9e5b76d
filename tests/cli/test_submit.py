"""`raylora submit`: refusals come before a job does, and what a job says is shown as asked."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raylora.cli.main import cli
from raylora.cluster import events
from raylora.cluster.capacity import Node
from raylora.cluster.connect import Cluster
from raylora.cluster.events import (
    ErrorEvent,
    EvaluationEvent,
    Event,
    RestartEvent,
    ResultEvent,
    StageEvent,
    StepEvent,
)
from raylora.cluster.job_info import JobInfo, JobState

STEP = StepEvent(2, 4, 0.5, 1e-3, 1.0, 1234.0, 500.0, 2_000_000_000, 90.0)
STORY: list[Event] = [
    StageEvent("base", "tiny"),
    StageEvent("train"),
    STEP,
    RestartEvent(1, 2),
    EvaluationEvent("base", 4, {"exact_match": 0.0}),
    EvaluationEvent("adapter", 4, {"exact_match": 0.75}),
    ResultEvent("RUN", "mlflow-run", "home-requests@1", ["champion"], "/out/adapter"),
]


class FakeClient:
    """A cluster of two cores whose jobs say STORY."""

    story: Sequence[Event] = STORY
    state = JobState.SUCCEEDED
    interrupt = False

    def __init__(self, _cluster: Cluster) -> None:
        self.run_id = ""

    def nodes(self) -> list[Node]:
        return [Node("127.0.0.2", {"CPU": 2.0})]

    def submit(self, _program: str, _args: Any, _files: Any, **given: Any) -> str:
        self.run_id = given["run_id"]
        return given["job_id"]

    def follow(self, _job_id: str) -> Iterator[str]:
        yield "some library says something"
        for event in self.story:
            yield f"(RayTrainWorker pid=1) {events.MARKER}{json.dumps(events.as_dict(event))}"
        yield "ValueError: the reason"
        if self.interrupt:
            raise KeyboardInterrupt

    def status(self, job_id: str) -> JobInfo:
        now = datetime.now(UTC)
        return JobInfo(job_id, self.state, "n", self.run_id, message="gone\nlong", started=now)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeClient]:
    """Put a fresh FakeClient behind the command."""
    kind = type("Fake", (FakeClient,), {})
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("raylora.cli.submit.JobClient", kind)
    here = Cluster("http://127.0.0.1:1", "127.0.0.2:1", is_local=True)
    monkeypatch.setattr("raylora.cli.submit.connect", lambda _: here)
    return kind


def raylora(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def test_a_followed_job_ends_with_its_result_and_what_to_do_next(fake: type[FakeClient]) -> None:
    result = raylora("submit", "quickstart")
    assert result.exit_code == 0, result.output
    for text in ("home-requests@1", "champion", "SUCCEEDED", "0.75"):
        assert text in result.stdout
    for text in (
        "base: tiny",
        "step 2/4  loss 0.5000",
        "1,234 tokens/s (",
        "2.0 GB  ETA 1:30",
        "going on after step 2",
        "adapter on 4 rows: exact_match 75.0%",
        "raylora adapters show home-requests@1",
    ):
        assert text in result.stderr
    assert "some library" not in result.output


def test_the_next_commands_look_where_the_run_is(fake: type[FakeClient], tmp_path: Path) -> None:
    elsewhere = raylora("submit", "quickstart", f"outputs={tmp_path}/other")
    assert f"adapters show home-requests@1 --outputs {tmp_path}/other" in elsewhere.stderr
    assert "serve up" not in elsewhere.stderr
    here = raylora("submit", "quickstart").stderr
    assert "--outputs" not in here
    assert "raylora serve up --adapter home-requests@1 model.quantization=nf4" in here
    plain = raylora("submit", "quickstart", "model.quantization=none").stderr
    assert "raylora serve up --adapter home-requests@1\n" in plain


def test_json_is_one_event_a_line_and_last_the_end(fake: type[FakeClient]) -> None:
    result = raylora("submit", "quickstart", "--output", "json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["event"] for line in lines] == [
        *("stage", "stage", "step", "restart", "evaluation", "evaluation", "result", "ended")
    ]
    assert lines[2] == events.as_dict(STEP)
    end = lines[-1]
    assert (end["state"], end["adapter"], end["restarts"]) == ("SUCCEEDED", "home-requests@1", 1)
    assert end["scores"] == {"base": {"exact_match": 0.0}, "adapter": {"exact_match": 0.75}}
    assert list(end["stage_seconds"]) == ["starting", "base", "train"]


def test_a_failed_job_exits_1_with_the_end_of_its_log(fake: type[FakeClient]) -> None:
    fake.state = JobState.FAILED
    result = raylora("submit", "quickstart")
    assert result.exit_code == 1
    for text in ("ended FAILED: gone", "ValueError: the reason", "raylora jobs logs"):
        assert text in result.stderr


def test_a_job_that_knows_its_error_ends_with_that_and_not_with_its_log(
    fake: type[FakeClient],
) -> None:
    fake.state = JobState.FAILED
    fake.story = (StageEvent("data"), ErrorEvent("rows.csv:3: not JSON", "mend the row"))
    said = raylora("submit", "quickstart").stderr
    assert said.count("rows.csv:3: not JSON") == 1
    assert "hint: mend the row\nraylora jobs logs" in said
    assert "the reason" not in said


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back_and_stop(fake: type[FakeClient]) -> None:
    fake.interrupt = True
    result = raylora("submit", "quickstart")
    assert result.exit_code == 130
    for text in ("goes on", "raylora jobs logs -f 2", "raylora jobs stop 2"):
        assert text in result.stderr


def test_detached_it_says_the_ids(fake: type[FakeClient]) -> None:
    result = raylora("submit", "quickstart", "--detach", "--output", "json")
    assert result.exit_code == 0
    ids = json.loads(result.stdout)
    assert ids["job_id"] == ids["run_id"]
    assert f"raylora jobs logs -f {ids['job_id']}" in result.stderr


def test_the_name_is_the_specs(fake: type[FakeClient], monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(
        fake, "submit", lambda self, *_, **given: names.append(given["name"]) or "id"
    )
    assert raylora("submit", "quickstart", "--name", "mine", "--detach").exit_code == 0
    assert names == ["mine"]


def test_a_dry_run_starts_nothing(fake: type[FakeClient], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylora.cli.submit.connect", lambda _: pytest.fail("connected"))
    result = raylora("submit", "quickstart", "lora.r=32", "--dry-run", "--output", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["spec"]["lora"]["r"] == 32


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("workers.num_workers=8", "training.micro_batch_size=1"),
            "8 workers with 1 CPU each and the cluster cannot hold them: it can hold 2",
        ),
        (("data.train=nowhere.jsonl", "data.validation=null"), "there is no such file"),
        (("data.train=big.jsonl", "data.validation=null"), "at most 50 MB"),
        (("lora.r=0", "training.epochs=-1"), "2 problems"),
    ],
)
def test_what_cannot_work_is_refused_with_exit_5(
    fake: type[FakeClient], words: Sequence[str], says: str, tmp_path: Path
) -> None:
    with (tmp_path / "big.jsonl").open("wb") as file:
        file.truncate(60_000_000)
    result = raylora("submit", "quickstart", *words)
    assert result.exit_code == 5
    assert says in result.stderr


def test_a_silent_head_is_exit_3_within_10_seconds(silent_dashboard: str) -> None:
    began = time.monotonic()
    result = raylora("submit", "quickstart", "--address", silent_dashboard)
    assert time.monotonic() - began < 10
    assert result.exit_code == 3
    assert "says nothing" in result.stderr


def test_a_head_that_is_not_there_is_exit_3() -> None:
    result = raylora("submit", "quickstart", "--address", "http://127.0.0.1:1")
    assert result.exit_code == 3


def test_a_refused_token_is_exit_4(
    dashboard: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    result = raylora("submit", "quickstart", "--address", dashboard(lambda *_: (403, "no")))
    assert result.exit_code == 4
    assert "wrong" not in result.output
