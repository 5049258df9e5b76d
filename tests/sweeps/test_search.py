"""A whole sweep on a real local cluster, with the tiny model, and with its driver lost."""

import json
import time
from pathlib import Path

import psutil
import pytest

from raylora.cli.stopping import stop_job
from raylora.cluster.bundle import build
from raylora.cluster.connect import Cluster
from raylora.cluster.events import ResultEvent, parse
from raylora.cluster.job_info import JobState
from raylora.cluster.jobs import JobClient
from raylora.cluster.submission import OUTPUTS
from raylora.config.compose import resolved_yaml
from raylora.config.places import new_run_id, run_dir
from raylora.config.sweep_spec import SweepSpec
from raylora.jobs.run_log import METRICS
from raylora.sweeps.ledger import LEDGER, Ledger
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import list_runs
from raylora.tracking.sweep_facts import TrialStatus
from raylora.tracking.sweeps import get_sweep

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


def test_a_sweep_whose_driver_is_killed_goes_on_and_registers_the_best(
    spec: SweepSpec, local_cluster: Cluster
):
    client, run_id = JobClient(local_cluster), new_run_id()
    program, arguments = "raylora.sweeps.search", ["spec.yaml", "--run-id", run_id]
    arguments += ["--config", "my.yaml model.dtype=fp32"]
    bundle = build(resolved_yaml(spec))
    known = {OUTPUTS: spec.outputs}
    client.submit(program, arguments, bundle, run_id=run_id, metadata=known)
    for line in client.follow(run_id):
        if "at step 10" in line:
            kill_driver(run_id)
            break
    else:
        pytest.fail(client.logs(run_id)[-4000:])
    wait_for_end(client, run_id)
    places = run_dir(spec.outputs, spec.tracking.experiment, run_id)
    before = Ledger(places.metadata / LEDGER)
    assert len(before.proposals) == 4 and len(before.reports) >= 2
    uri = f"sqlite:///{spec.outputs}/mlflow.db"
    stop_job(client, run_id)
    statuses = {run.status for run in list_runs(uri, limit=9)}
    assert RunStatus.KILLED in statuses and RunStatus.RUNNING not in statuses
    assert get_sweep(uri, run_id).summary.status is RunStatus.KILLED

    client.submit(program, arguments, bundle, run_id=run_id, job_id=f"{run_id}-r1")
    lines = list(client.follow(f"{run_id}-r1"))
    said = client.logs(f"{run_id}-r1")
    assert client.status(f"{run_id}-r1").state is JobState.SUCCEEDED, said[-4000:]
    result = parse(lines[-1])
    assert isinstance(result, ResultEvent) and result.adapter == "tiny-sweep@1"

    after = Ledger(places.metadata / LEDGER)
    assert after.proposals == before.proposals
    assert after.reports[: len(before.reports)] == before.reports
    sweep = get_sweep(uri, run_id)
    assert sweep.summary.status is RunStatus.FINISHED
    assert (sweep.summary.best_trial, sweep.summary.best_adapter) == (
        sweep.ranked[0].name,
        "tiny-sweep@1",
    )
    assert [trial.name for trial in sweep.trials] == ["t01", "t02", "t03", "t04"]
    for trial in sweep.trials:
        assert trial.state in (TrialStatus.FINISHED, TrialStatus.STOPPED)
        assert (trial.step == 20) is (trial.state is TrialStatus.FINISHED)
        logs = run_dir(spec.outputs, spec.tracking.experiment, trial.run_id).logs
        text = (logs / METRICS).read_text(encoding="utf-8")
        steps = [json.loads(line)["step"] for line in text.splitlines()]
        assert steps == list(range(1, len(steps) + 1)) and trial.step <= len(steps) <= 20
        overrides = " ".join(f"{key}={value}" for key, value in trial.settings.items())
        assert trial.submit == f"raylora submit my.yaml model.dtype=fp32 {overrides}"
    report = json.loads((places.artifacts / "report" / "report.json").read_text("utf-8"))
    assert [trial["name"] for trial in report["trials"]] == [t.name for t in sweep.ranked]
    assert result.run_id == run_id
    best = sweep.ranked[0]
    assert best.mlflow_run_id == result.mlflow_run_id
    assert best.metrics["loss"] == min(trial.metrics["loss"] for trial in sweep.trials)
    assert Registry(uri).aliases("tiny-sweep") == {"champion": 1, "candidate": 1}
    assert result.aliases == ["champion", "candidate"]


def kill_driver(run_id: str) -> None:
    """SIGKILL, as of a machine that is lost."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if run_id in command and "raylora.sweeps.search" in command:
            process.kill()


def wait_for_end(client: JobClient, job_id: str) -> None:
    deadline = time.monotonic() + 60
    while not client.status(job_id).state.terminal:
        assert time.monotonic() < deadline
        time.sleep(0.5)
