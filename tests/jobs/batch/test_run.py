"""raylora batch on a real cluster: killed in the middle, and gone on with."""

import json
import shutil
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result
from tests.registered import register

from raylora.cli.main import cli
from raylora.cluster import head, processes
from raylora.cluster.connect import Cluster
from raylora.cluster.job_info import JobState
from raylora.cluster.jobs import JobClient
from raylora.config.model_spec import DType, ModelSource, ModelSpec

pytestmark = pytest.mark.ray


@pytest.fixture
def batch(tiny_base: Path, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run `raylora batch` over rows of a file of 150, two of which cannot be asked."""
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model = ModelSpec(
        source=ModelSource.PATH, id=str(tiny_base), name="tiny", dtype=DType.FP32, max_length=256
    )
    (tmp_path / "outputs").mkdir()
    shutil.copy(empty_store, tmp_path / "outputs" / "mlflow.db")
    for seed, name in enumerate(("tones", "sums"), start=1):
        register(tmp_path / "outputs", model, tmp_path, name, f"You are {name}.", seed)
    rows = [json.dumps({"prompt": f"row {number}"}) for number in range(1, 151)]
    rows[6], rows[8] = "{", json.dumps({"prompt": "x" * 400})
    Path("in.jsonl").write_text("\n".join(rows), encoding="utf-8")
    settings = (
        f"model.id={tiny_base} model.source=path model.name=tiny model.dtype=fp32 "
        "model.max_length=256 batching.max_batch_size=8"
    )

    def run(*arguments: str) -> Result:
        given = ["batch", "in.jsonl", "out.jsonl", *settings.split(), "--max-tokens", "8"]
        adapters = ("--adapter", "tones@champion", "--adapter", "sums", "--base")
        return CliRunner().invoke(cli, [*given, *adapters, "-o", "json", *arguments])

    return run


def lines() -> list[dict]:
    return [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").splitlines()]


def test_a_killed_batch_goes_on_where_it_was(batch, local_cluster: Cluster, tmp_path: Path):
    client = JobClient(local_cluster)
    job_id = started(batch, client)
    client.stop(job_id)
    before = len(lines_so_far())
    assert 20 < before < 450

    again = batch()
    assert again.exit_code == 0, again.output
    told = json.loads(again.stdout)
    assert told["resumed"] >= before - 1
    assert told["resumed"] + told["answers"] + len(told["refusals"]) == 450
    assert told["refused"] == 6
    found = lines()
    keys = {(line["row"], line["adapter"]) for line in found}
    assert len(found) == len(keys) == 450
    assert {line["row"] for line in found if "error" in line} == {7, 9}
    assert "in.jsonl:7" in next(line["error"] for line in found if line["row"] == 7)
    assert all(line["adapter"] in ("tones@1", "sums@1", "tiny") for line in found)

    other = batch("--temperature", "0.5")
    assert other.exit_code == 5, other.output
    assert "temperature" in other.stderr


def test_what_a_killed_actor_was_asked_is_asked_again(batch, local_cluster: Cluster):
    client = JobClient(local_cluster)
    job_id = started(batch, client)
    [actor] = answering()
    actor.kill()
    assert len(lines_so_far()) < 450
    log = "\n".join(client.follow(job_id))
    assert client.status(job_id).state is JobState.SUCCEEDED, log
    found = lines()
    keys = {(line["row"], line["adapter"]) for line in found}
    assert len(found) == len(keys) == 450
    assert {line["row"] for line in found if "error" in line} == {7, 9}
    assert "Dataset" not in log
    assert "ray.data" not in log


def started(batch, client: JobClient) -> str:
    """A job that has written some of its lines, and not all."""
    begun = batch("--detach")
    assert begun.exit_code == 0, begun.output
    job_id = json.loads(begun.stdout)["job_id"]
    deadline = time.monotonic() + 120
    while not (Path("out.jsonl").exists() and len(lines_so_far()) > 20):
        assert time.monotonic() < deadline, client.logs(job_id)
        time.sleep(0.05)
    return job_id


def answering() -> list[psutil.Process]:
    """Processes of the batch's actors."""
    state = head.running()
    assert state is not None
    family = processes.family(state.id, Path(state.temp_dir), state.process)
    return [process for process in family if "_Answering" in " ".join(process.cmdline())]


def lines_so_far() -> list[str]:
    return Path("out.jsonl").read_text("utf-8").split("\n")[:-1]
