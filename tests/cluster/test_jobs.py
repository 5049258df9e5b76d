"""Jobs on a real cluster: what is shipped arrives, what happens is seen, what is stopped ends."""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raylora.cluster import bundle, events, submission
from raylora.cluster.bundle import Bundle
from raylora.cluster.connect import Cluster
from raylora.cluster.events import RestartEvent
from raylora.cluster.job_info import JobState
from raylora.cluster.jobs import JobClient
from raylora.cluster.settled_paths import settle
from raylora.cluster.shipped_files import spec_files
from raylora.config.compose import resolved_yaml
from raylora.config.places import new_run_id
from raylora.config.train_spec import TrainSpec
from raylora.errors import InsufficientResources, NotFound

pytestmark = pytest.mark.ray

Program = Callable[[str], Bundle]


@pytest.fixture
def client(local_cluster: Cluster) -> JobClient:
    return JobClient(local_cluster)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Make a bundle whose folder has a program `probe` with this source."""

    def write(source: str) -> Bundle:
        folder = tmp_path / "working-dir"
        folder.mkdir(exist_ok=True)
        (folder / "probe.py").write_text(textwrap.dedent(source), encoding="utf-8")
        return Bundle(folder, bundle.build("{}\n").package)

    return write


def wait_for(client: JobClient, job_id: str, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in client.logs(job_id):
        assert time.monotonic() < deadline, client.logs(job_id)
        time.sleep(0.2)


def test_a_job_is_followed_from_its_first_line_to_its_end(
    client: JobClient, program: Program
) -> None:
    files = program(
        """
        import os, shutil, sys, time
        from raylora.cluster.events import RestartEvent, emit
        print("arguments", sys.argv[1:])
        print("secret", os.environ.get("RAYLORA_TEST_SECRET"), os.environ["GIVEN"])
        print("python", shutil.which("python"))
        emit(RestartEvent(attempt=1, resumed_step=2))
        time.sleep(1)
        print("no line end", end="")
        """
    )
    arguments = ["two words", "$(id)", "'"]
    job_id = client.submit(
        "probe", arguments, files, name="first", env={"GIVEN": "yes"}, metadata={"more": "x"}
    )
    lines = list(client.follow(job_id))
    assert f"arguments {arguments}" in lines
    assert "secret None yes" in lines
    assert f"python {Path(sys.executable).parent / 'python'}" in lines
    assert lines[-1] == "no line end"
    assert [event for line in lines if (event := events.parse(line))] == [RestartEvent(1, 2)]
    job = client.status(job_id)
    assert (job.state, job.name, job.program) == (JobState.SUCCEEDED, "first", "probe")
    assert job.metadata["more"] == "x"
    assert job.seconds is not None
    assert job.job_id in [listed.job_id for listed in client.list()]


def test_a_failed_job_is_one(client: JobClient, program: Program) -> None:
    job_id = client.submit("probe", [], program("print('before'); raise SystemExit(6)"))
    assert "before" in "\n".join(client.follow(job_id))
    job = client.status(job_id)
    assert job.state is JobState.FAILED
    assert job.exit_code == 6


def test_a_stopped_job_may_close_what_it_has_open(client: JobClient, program: Program) -> None:
    files = program(
        """
        import signal, sys, time
        def close(*_):
            time.sleep(4)  # longer than the 3 s Ray grants by itself
            print("closed")
            sys.exit(1)
        signal.signal(signal.SIGTERM, close)
        print("waiting")
        time.sleep(600)
        """
    )
    job_id = client.submit("probe", [], files)
    wait_for(client, job_id, "waiting")
    assert client.stop(job_id).state is JobState.STOPPED
    assert "closed" in client.logs(job_id)
    assert client.stop(job_id).state is JobState.STOPPED


def test_an_unknown_job_is_not_found(client: JobClient) -> None:
    for ask in (client.status, client.logs, client.stop, lambda job: list(client.follow(job))):
        with pytest.raises(NotFound):
            ask("nobody")


def test_the_environment_does_not_lead_to_another_cluster(
    local_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert JobClient(local_cluster).capacity()["CPU"] >= 1
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


def test_what_the_cluster_can_never_hold_is_refused_before_submission(
    local_cluster: Cluster, client: JobClient, tmp_path: Path
) -> None:
    training = {"global_batch_size": 500, "micro_batch_size": 1}
    spec = TrainSpec.model_validate({"workers": {"num_workers": 500}, "training": training})
    before = len(client.list())
    with pytest.raises(InsufficientResources, match="500 workers with 1 CPU each"):
        submission.submit(client, local_cluster, spec, run_id=new_run_id(), base=tmp_path)
    assert len(client.list()) == before


def test_a_run_is_resumed_under_its_own_id(
    local_cluster: Cluster, client: JobClient, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n", encoding="utf-8")
    spec = TrainSpec.model_validate(
        {"name": "again", "data": {"train": "rows.jsonl"}, "workers": {"num_workers": 1}}
    )
    run_id = new_run_id()
    # json.tool is a program that every Python has, and it refuses these arguments.
    first = submission.submit(
        client, local_cluster, spec, run_id=run_id, base=tmp_path, program="json.tool"
    )
    list(client.follow(first.job_id))
    rows.write_text("changed\n", encoding="utf-8")
    second = submission.resume(client, first.job_id)
    assert (first.run_id, second.run_id) == (run_id, run_id)
    assert second.job_id == f"{run_id}-r1"
    assert (second.bundle.working_dir / first.bundle.files[0].path).read_text("utf-8") == "{}\n"
    list(client.follow(second.job_id))
    job = client.status(second.job_id)
    assert (job.run_id, job.name, job.program) == (run_id, "again", "json.tool")


@pytest.mark.usefixtures("second_node")
def test_a_bundle_reaches_a_driver_and_tasks_on_two_nodes(
    local_cluster: Cluster, client: JobClient, tmp_path: Path
) -> None:
    # The data is named relative to a folder that is neither this process's nor the package's.
    (tmp_path / "rows.jsonl").write_text("the rows\n", encoding="utf-8")
    probe = """
import json, os, ray, yaml, raylora.jobs
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

def look():
    spec = yaml.safe_load(open("spec.yaml"))
    with open(spec["data"]["train"]) as file:
        return [ray.get_runtime_context().get_node_id(), file.read(), raylora.jobs.__file__]

ray.init(address="auto", log_to_driver=False)
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
tasks = [ray.remote(look).options(scheduling_strategy=On(node, soft=False)) for node in nodes]
print("SEEN", json.dumps([look(), *ray.get([task.remote() for task in tasks])]))
"""
    spec = TrainSpec.model_validate({"data": {"train": "rows.jsonl"}})
    settled = settle(spec, is_local=True, base=tmp_path)
    staged = bundle.build(resolved_yaml(settled), spec_files(settled, tmp_path))
    script = tmp_path / "submit.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from raylora.cluster.bundle import Bundle\n"
        "from raylora.cluster.connect import connect\n"
        "from raylora.cluster.jobs import JobClient\n"
        "client = JobClient(connect(None, start=False))\n"
        "files = Bundle(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "job_id = client.submit('probe', [], files)\n"
        "print(*client.follow(job_id), sep='\\n')\n",
        encoding="utf-8",
    )
    (staged.working_dir / "probe.py").write_text(probe, encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), str(staged.working_dir), str(staged.package)],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    seen = [line for line in done.stdout.splitlines() if line.startswith("SEEN")]
    assert seen, done.stdout
    driver, *tasks = json.loads(seen[0].removeprefix("SEEN "))
    assert len({node for node, _, _ in tasks}) == 2
    for _, rows, module in (driver, *tasks):
        assert rows == "the rows\n"
        # The shipped copy, not the one that happens to be installed on this machine.
        assert "py_modules_files" in module
