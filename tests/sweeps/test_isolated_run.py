"""A sweep on a real local cluster some of whose trials cannot share a base."""

from pathlib import Path

import pytest
from tests.sweeps import scripted

from raylora.cluster.bundle import build
from raylora.cluster.connect import Cluster
from raylora.cluster.job_info import JobState
from raylora.cluster.jobs import JobClient
from raylora.config.compose import resolved_yaml
from raylora.config.places import new_run_id
from raylora.config.sweep_spec import SweepSpec
from raylora.tracking.sweep_facts import TrialStatus
from raylora.tracking.sweeps import get_sweep

pytestmark = pytest.mark.ray


@pytest.fixture
def spec(tiny_base: Path, tmp_path: Path) -> SweepSpec:
    rows = scripted.write_rows(tmp_path / "rows.jsonl")
    base = scripted.spec_of(tiny_base, rows, rows).model_dump(mode="json")
    # NEFTune, as its adapters can be served from a bank; 1e-9 of noise changes nothing.
    space = {"training.neftune_noise_alpha": {"choice": [0.0, 1e-9]}}
    search = {"space": space, "searcher": "grid", "scheduler": "none", "report_steps": 2}
    return SweepSpec.model_validate(
        {**base, "name": "mixed", "outputs": str(tmp_path / "outputs"), "sweep": search}
    )


def test_trials_that_cannot_share_train_beside_those_that_do(
    spec: SweepSpec, local_cluster: Cluster
):
    client, run_id = JobClient(local_cluster), new_run_id()
    arguments = ["spec.yaml", "--run-id", run_id, "--config", "mixed.yaml"]
    client.submit("raylora.sweeps.search", arguments, build(resolved_yaml(spec)), run_id=run_id)
    lines = list(client.follow(run_id))
    assert client.status(run_id).state is JobState.SUCCEEDED, client.logs(run_id)[-4000:]
    log = "\n".join(lines)
    assert "1 of 2 trials train isolated: noise on embeddings" in log, log[-4000:]

    sweep = get_sweep(f"sqlite:///{spec.outputs}/mlflow.db", run_id)
    assert {trial.mode for trial in sweep.trials} == {"fused", "isolated"}
    for trial in sweep.trials:
        assert trial.state is TrialStatus.FINISHED and trial.step == 6
        assert trial.adapter_bytes
    shared, alone = sweep.trials
    assert alone.metrics["loss"] == pytest.approx(shared.metrics["loss"], rel=1e-4)
