"""What is submitted, what is kept of it, and what a resume does with that."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from raylora.cluster import submission
from raylora.cluster.capacity import Node
from raylora.cluster.connect import Cluster
from raylora.cluster.job_info import JobInfo, JobState
from raylora.config.compose import load_sweep
from raylora.config.sweep_spec import SweepSpec
from raylora.config.train_spec import TrainSpec
from raylora.errors import InsufficientResources, NotFound, RayloraError

HERE = Cluster("http://127.0.0.1:1", "127.0.0.2:1", is_local=True)
RUN = "20260101-120000-a1b2c3"


class FakeClient:
    """A cluster that accepts every job and runs none."""

    def __init__(self) -> None:
        self.jobs: list[JobInfo] = []
        self.specs: list[dict[str, Any]] = []
        self.arguments: list[list[str]] = []
        self.metadata: list[dict[str, str]] = []

    def submit(self, program: str, args: Any, files: Any, **given: Any) -> str:
        spec = yaml.safe_load((files.working_dir / "spec.yaml").read_text("utf-8"))
        self.specs.append(spec)
        self.arguments.append([program, *args])
        self.metadata.append(given["metadata"])
        metadata = {submission.RUN_ID: given["run_id"]}
        job = JobInfo(given["job_id"], JobState.RUNNING, run_id=given["run_id"], metadata=metadata)
        self.jobs.insert(0, job)
        return job.job_id

    def list(self) -> Any:
        return self.jobs

    def nodes(self) -> Any:
        return [Node("127.0.0.2", {"CPU": 2.0})]

    def end(self, state: JobState) -> None:
        newest = self.jobs[0]
        self.jobs[0] = JobInfo(newest.job_id, state, run_id=RUN, metadata=newest.metadata)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))


@pytest.fixture
def client() -> Any:
    return FakeClient()


def spec_of(**values: Any) -> TrainSpec:
    return TrainSpec.model_validate(values)


def test_a_submission_ships_the_settled_spec_under_the_run_id(tmp_path: Path, client: Any) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    spec = spec_of(
        data={"train": "rows.jsonl", "validation": "file:///shared/held.jsonl"},
        tracking={"uri": "https://me:secret@mlflow.example.com"},
    )
    submitted = submission.submit(client, HERE, spec, run_id=RUN, base=tmp_path)
    assert (submitted.job_id, submitted.run_id) == (RUN, RUN)
    shipped = client.specs[0]
    assert shipped["data"]["train"] == submitted.bundle.files[0].path
    assert shipped["data"]["validation"] == "file:///shared/held.jsonl"
    assert shipped["outputs"] == str(tmp_path / "outputs")
    assert client.arguments == [["raylora.jobs.finetune", "spec.yaml", "--run-id", RUN]]
    assert client.metadata == [
        {
            "raylora.outputs": str(tmp_path / "outputs"),
            "raylora.tracking": "https://mlflow.example.com",
        }
    ]


def test_the_shipped_spec_is_the_spec(tmp_path: Path, client: Any) -> None:
    spec = spec_of(name="yes", outputs="/out", training={"learning_rate": 1e-5})
    assert submission.submit(client, HERE, spec, run_id=RUN, base=tmp_path).spec() == spec


def test_a_resume_repeats_the_submission_under_the_same_run(tmp_path: Path, client: Any) -> None:
    submission.submit(client, HERE, spec_of(), run_id=RUN, base=tmp_path)
    with pytest.raises(RayloraError, match="still running") as caught:
        submission.resume(client, RUN)
    assert caught.value.hint == f"raylora jobs logs -f {RUN}"

    client.end(JobState.FAILED)
    assert submission.resume(client, RUN).job_id == f"{RUN}-r1"
    client.end(JobState.STOPPED)
    assert submission.resume(client, f"{RUN}-r1").job_id == f"{RUN}-r2"
    assert client.arguments[0] == client.arguments[1] == client.arguments[2]
    assert client.specs[0] == client.specs[2]


def test_a_resumed_sweep_is_still_a_sweep(tmp_path: Path, client: Any) -> None:
    spec = load_sweep("quickstart-sweep").spec
    submission.submit(client, HERE, spec, run_id=RUN, base=tmp_path, program=submission.SEARCH)
    client.end(JobState.STOPPED)
    resumed = submission.resume(client, RUN).spec()
    assert isinstance(resumed, SweepSpec)
    assert resumed.sweep == spec.sweep


def test_a_cluster_that_forgot_the_job_can_still_resume_it(tmp_path: Path, client: Any) -> None:
    submission.submit(client, HERE, spec_of(), run_id=RUN, base=tmp_path)
    client.jobs.clear()
    assert submission.resume(client, f"{RUN}-r3").run_id == RUN


@pytest.mark.parametrize("job_id", ["20000101-000000-abcdef", "../../etc/passwd", ""])
def test_what_was_not_submitted_here_cannot_be_resumed(client: Any, job_id: str) -> None:
    with pytest.raises(NotFound, match="nothing is known here"):
        submission.resume(client, job_id)


def test_a_job_without_a_run_cannot_be_resumed(client: Any) -> None:
    client.jobs.append(JobInfo("raylora-serve", JobState.SUCCEEDED))
    with pytest.raises(NotFound, match="no training job"):
        submission.resume(client, "raylora-serve")


def test_a_sweep_of_more_trials_at_once_than_fit_is_refused_before_anything_is_submitted(
    client: Any, tmp_path: Path
) -> None:
    spec = load_sweep("quickstart-sweep", ["sweep.at_once=4", "sweep.execution=isolated"]).spec
    with pytest.raises(InsufficientResources, match="4 workers.*can hold 2"):
        submission.submit(client, HERE, spec, run_id=RUN, base=tmp_path)
    assert client.jobs == []
