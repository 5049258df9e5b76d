"""data.ingest=ray_data as a Ray Job: the cache that it fills is the one a single process makes."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from raylora.cluster.bundle import build
from raylora.cluster.connect import Cluster
from raylora.cluster.job_info import JobState
from raylora.cluster.jobs import JobClient
from raylora.config.compose import resolved_yaml
from raylora.config.places import new_run_id
from raylora.config.train_spec import TrainSpec
from raylora.jobs.data.encode import Encoder
from raylora.jobs.data.loading import load

pytestmark = pytest.mark.ray

ROWS = 5000


@pytest.fixture
def make_spec(tiny_base: Path, tmp_path: Path) -> Callable[[str], TrainSpec]:
    def make(last: str) -> TrainSpec:
        mark = uuid.uuid4().hex  # the cache is the user's: no other run has such rows
        rows = ({"prompt": f"{mark} {i}", "completion": f"a{i}"} for i in range(ROWS))
        text = "".join(json.dumps(row) + "\n" for row in rows) + last
        (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
        data = {"train": str(tmp_path / "rows.jsonl"), "validation": None, "ingest": "ray_data"}
        model = {"source": "path", "id": str(tiny_base), "name": "tiny"}
        return TrainSpec.model_validate({"model": model, "data": data})

    return make


def run(cluster: Cluster, spec: TrainSpec) -> tuple[JobState, str]:
    client, run_id = JobClient(cluster), new_run_id()
    client.submit("raylora.jobs.ingest", ["spec.yaml"], build(resolved_yaml(spec)), run_id=run_id)
    for _ in client.follow(run_id):
        pass
    return client.status(run_id).state, client.logs(run_id)


def test_tasks_fill_the_cache_in_the_order_of_the_rows(local_cluster, make_spec, monkeypatch):
    spec = make_spec("")
    state, log = run(local_cluster, spec)
    assert state is JobState.SUCCEEDED, log[-3000:]
    tokenizer = AutoTokenizer.from_pretrained(spec.model.id)
    tokenizer.padding_side = "left"
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", None)
        filled = load(spec.data, tokenizer, Path.cwd())
    assert filled.report.rows == len(filled.train) == ROWS
    monkeypatch.setenv("RAYLORA_CACHE", str(Path(spec.data.train).parent / "cache"))
    assert load(spec.data, tokenizer, Path.cwd()).train.digest == filled.train.digest


def test_a_bad_row_ends_the_job_with_its_place(local_cluster, make_spec):
    state, log = run(local_cluster, make_spec("nope\n"))
    assert state is JobState.FAILED
    assert f"rows.jsonl:{ROWS + 1}: not JSON" in log
