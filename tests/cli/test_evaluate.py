"""`raylora evaluate`, `baseline` and `score`: what is refused, and what a job found as shown."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raylora.cli.main import cli
from raylora.cluster import events
from raylora.cluster.capacity import Node
from raylora.cluster.connect import Cluster
from raylora.cluster.events import ComparisonEvent, EvaluationEvent, Event, ReportEvent, parse
from raylora.cluster.job_info import JobInfo, JobState
from raylora.config.compose import read_resolved
from raylora.config.evaluate_spec import EvaluateSpec

COMPARED = ComparisonEvent(
    *("home", "exact_match", "h@2", "h@1", 40),
    *(-0.05, -0.125, 0.025, 1, 3, 36, 3),
    verdict="no difference shown",
    forgetting=None,
)
FORGOTTEN = ComparisonEvent(
    *("general", "loss", "h@2", "base", 90),
    *(0.31, 0.2, 0.42, 10, 80, 0, None),
    verdict="worse",
    forgetting=True,
)
STORY: list[Event] = [
    EvaluationEvent(
        *("base", 40, {"exact_match": 0.25, "mine:f": math.nan, "loss": 2.5}, "home", 2),
        {"exact_match": [0.125, 0.375], "loss": [2.25, 2.75]},
    ),
    EvaluationEvent("h@2", 40, {"exact_match": 0.95, "mine:f": 1.0, "loss": 0.5}, "home", 2, {}),
    COMPARED,
    FORGOTTEN,
    ReportEvent("RUN", "mlflow-run", "/out/evaluation"),
]


class FakeClient:
    """A cluster of two cores whose jobs say STORY."""

    submitted: list[tuple[str, Path]] = []
    story: Sequence[Event] = STORY
    nodes_: Sequence[Node] = [Node("127.0.0.2", {"CPU": 2.0})]

    def __init__(self, _cluster: Cluster) -> None:
        self.run_id = ""

    def nodes(self) -> Sequence[Node]:
        return self.nodes_

    def submit(self, program: str, _args: Any, files: Any, **given: Any) -> str:
        self.submitted.append((program, files.working_dir))
        self.run_id = given["run_id"]
        return given["job_id"]

    def follow(self, _job_id: str) -> Iterator[str]:
        for event in self.story:
            yield f"{events.MARKER}{json.dumps(events.as_dict(event))}"

    def status(self, job_id: str) -> JobInfo:
        now = datetime.now(UTC)
        return JobInfo(job_id, JobState.SUCCEEDED, "n", self.run_id, message="", started=now)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeClient]:
    kind = type("Fake", (FakeClient,), {"submitted": []})
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("raylora.cli.evaluate.JobClient", kind)
    here = Cluster("http://127.0.0.1:1", "127.0.0.2:1", is_local=True)
    monkeypatch.setattr("raylora.cli.evaluate.connect", lambda _: here)
    return kind


def raylora(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def shipped(fake: type[FakeClient]) -> EvaluateSpec:
    program, folder = fake.submitted[-1]
    assert program == "raylora.jobs.evaluate_adapters"
    return read_resolved(folder / "spec.yaml", EvaluateSpec)


def test_events_survive_the_log() -> None:
    for event in STORY[1:]:
        assert parse(f"{events.MARKER}{json.dumps(events.as_dict(event))}") == event


def test_scores_have_intervals_and_what_is_missing_says_so(fake: type[FakeClient]) -> None:
    done = raylora("evaluate", "quickstart")
    assert done.exit_code == 0, done.output
    for text in ("25.0% (12.5% to 37.5%)", "missing", "2.5 (2.25 to 2.75)", "95.0%", "not asked"):
        assert text in done.stdout
    for text in ("-5.0", "-12.5 to +2.5", "no difference shown", "forgotten", "+0.3100"):
        assert text in done.stdout
    assert "/out/evaluation/evaluation.html" in done.stderr
    assert "raylora runs show" in done.stderr


def test_what_the_store_does_not_have_yet_is_sent_by_sync(
    fake: type[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "story", [*STORY[:-1], ReportEvent("RUN", "", "/out/evaluation")])
    done = raylora("evaluate", "quickstart")
    assert done.exit_code == 0, done.output
    assert "its server was away" in done.stderr
    assert re.search(r"  raylora runs sync [0-9]{8}-[0-9]{6}-[0-9a-f]{6}$", done.stderr, re.M)
    assert "raylora runs show" not in done.stderr
    end = json.loads(raylora("evaluate", "quickstart", "-o", "json").stdout.splitlines()[-1])
    assert end["mlflow_run_id"] is None


def test_json_ends_with_every_figure_and_null_for_what_is_missing(fake: type[FakeClient]) -> None:
    lines = raylora("evaluate", "quickstart", "-o", "json").stdout.splitlines()
    end = json.loads(lines[-1])
    assert end["scores"][0]["metrics"] == {"exact_match": 0.25, "mine:f": None, "loss": 2.5}
    assert [c["forgetting"] for c in end["comparisons"]] == [None, True]
    assert end["folder"] == "/out/evaluation"


def test_who_is_asked_can_be_said_in_the_command(fake: type[FakeClient]) -> None:
    assert raylora("evaluate", "--compare", "base,h@champion,h@7").exit_code == 0
    assert shipped(fake).subjects == ("base", "h@champion", "h@7")
    assert raylora("evaluate", "evaluation.max_rows=3").exit_code == 0
    assert shipped(fake).evaluation.max_rows == 3
    assert raylora("baseline", "quickstart").exit_code == 0
    assert shipped(fake).subjects == ("base",)


def test_files_and_metrics_travel_and_keep_their_names(
    fake: type[FakeClient], tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt":"a","completion":"b"}\n', encoding="utf-8")
    (tmp_path / "mine.py").write_text("def f(a, r): return 1\n", encoding="utf-8")
    (tmp_path / "e.yaml").write_text(
        "subjects: [./adapters/one]\nmodule: mine.py\n"
        "datasets: [{source: rows.jsonl, metrics: ['mine:f']}]\n",
        encoding="utf-8",
    )
    done = raylora("evaluate", "e.yaml", "--detach", "-o", "json")
    assert done.exit_code == 0, done.output
    spec = shipped(fake)
    assert spec.datasets[0].label == "rows"
    assert spec.subjects == (str(tmp_path / "adapters/one"),)
    folder = fake.submitted[-1][1]
    assert spec.module and (folder / spec.module).read_text("utf-8").startswith("def f")
    assert (folder / spec.datasets[0].source).is_file()


def test_a_job_that_can_never_run_is_refused(fake: type[FakeClient]) -> None:
    done = raylora("evaluate", "quickstart", "workers.num_workers=3")
    assert done.exit_code == 5
    assert "3 workers with 1 CPU each" in done.output
    assert fake.submitted == []


def test_mistakes_are_said_all_at_once(fake: type[FakeClient]) -> None:
    done = raylora("evaluate", "quickstart", "evaluation.metrics=[bleu]", "datasets=[{sorce: a}]")
    assert done.exit_code == 5
    for text in ("no metric called 'bleu'", "datasets.0.sorce", "Did you mean datasets.0.source?"):
        assert text in done.output


def test_score_wants_a_file_to_write_beside(fake: type[FakeClient], tmp_path: Path) -> None:
    done = raylora("score", "quickstart")
    assert done.exit_code == 5
    assert "no data set is a file on this machine" in done.output
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    two = ("--file", "a/rows.jsonl", "--file", "b/rows.jsonl")
    assert "two files are called rows" in raylora("score", "quickstart", *two).output
    far = raylora(
        *("score", "quickstart", "outputs=/shared/out", "--file", "a/rows.jsonl"),
        *("--address", "http://head:8265"),
    )
    assert far.exit_code == 5
    assert "tracking.uri" in far.output
    assert fake.submitted == []
