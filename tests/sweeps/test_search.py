"""A whole sweep on a real local cluster, with the tiny model."""

import json
from pathlib import Path

import pytest

from raylora.cluster.bundle import build
from raylora.cluster.connect import Cluster
from raylora.cluster.events import ResultEvent, parse
from raylora.cluster.job_info import JobState
from raylora.cluster.jobs import JobClient
from raylora.config.compose import resolved_yaml
from raylora.config.places import new_run_id
from raylora.config.sweep_spec import SweepSpec
from raylora.tracking.registry import Registry
from raylora.tracking.runs import list_runs

pytestmark = pytest.mark.ray

ROWS = [
    {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
    for ask, answer in [("on", '{"a":1}'), ("off", '{"a":0}'), ("up", '{"a":2}'), ("no", "{}")]
]


@pytest.fixture
def spec(tiny_base: Path, tmp_path: Path) -> SweepSpec:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return SweepSpec.model_validate(
        {
            "name": "tiny-sweep",
            "outputs": str(tmp_path / "outputs"),
            "model": {"source": "path", "id": str(tiny_base), "name": "tiny", "dtype": "fp32"},
            "data": {"train": str(rows), "validation": str(rows)},
            "training": {
                "max_steps": 20,
                "save_steps": 10,
                "global_batch_size": 4,
                "micro_batch_size": 4,
            },
            "workers": {"num_workers": 1},
            "evaluation": {"max_new_tokens": 4},
            "tracking": {"system_metrics": False},
            "sweep": {
                "space": {
                    "lora.r": {"choice": [2, 8]},
                    "training.learning_rate": {"choice": [1e-6, 3e-2]},
                },
                "searcher": "grid",
                "grace_steps": 5,
                "on_finish": {"alias": "candidate"},
            },
        }
    )


def test_a_sweep_trains_its_trials_and_registers_the_best(spec: SweepSpec, local_cluster: Cluster):
    client, run_id = JobClient(local_cluster), new_run_id()
    arguments = ["spec.yaml", "--run-id", run_id]
    client.submit("raylora.sweeps.search", arguments, build(resolved_yaml(spec)), run_id=run_id)
    lines = list(client.follow(run_id))
    assert client.status(run_id).state is JobState.SUCCEEDED, client.logs(run_id)[-4000:]
    result = parse(lines[-1])
    assert isinstance(result, ResultEvent) and result.adapter == "tiny-sweep@1"

    uri = f"sqlite:///{spec.outputs}/mlflow.db"
    runs = {run.run_id: run for run in list_runs(uri, limit=10)}
    trials = [run for name, run in runs.items() if name != run_id]
    assert len(trials) == 4 and {run.status for run in runs.values()} == {"FINISHED"}
    best = next(run for run in trials if run.mlflow_run_id == result.mlflow_run_id)
    assert best.metrics["loss"] == min(run.metrics["loss"] for run in trials)
    assert result.aliases == ["champion", "candidate"]
    assert Registry(uri).aliases("tiny-sweep") == {"champion": 1, "candidate": 1}
