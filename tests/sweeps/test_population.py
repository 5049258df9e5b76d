"""Trials that go on from each other: what changes, what is copied, and a whole run of it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.sweeps import scripted

from raylora.cluster.bundle import build
from raylora.cluster.connect import Cluster
from raylora.cluster.job_info import JobState
from raylora.cluster.jobs import JobClient
from raylora.config.compose import resolved_yaml
from raylora.config.places import new_run_id, run_dir
from raylora.config.search_space import Domain
from raylora.config.sweep_spec import SweepSpec
from raylora.errors import RayloraError
from raylora.lora import manifest
from raylora.lora.integrity import verify
from raylora.sweeps.ledger import Proposal
from raylora.sweeps.population import Population, copy_state, varied
from raylora.sweeps.proposals import Dice
from raylora.sweeps.thin_trial import PROPOSAL
from raylora.tracking.sweep_facts import TrialStatus
from raylora.tracking.sweeps import get_sweep

RATE, WARMUP = "training.learning_rate", "training.warmup_ratio"
SPACE = {
    "lora.r": Domain(choice=(4, 8, 16)),
    "lora.lora_alpha": Domain(times=("lora.r", 2)),
    RATE: Domain(loguniform=(1e-4, 1e-2)),
    WARMUP: Domain(choice=(0.0, 0.05, 0.1, 0.2)),
}
SETTINGS = {"lora.r": 8, "lora.lora_alpha": 16, RATE: 1e-3, WARMUP: 0.05}


def test_rates_change_a_little_and_ranks_never():
    found = [varied(SPACE, SETTINGS, Dice(seed)) for seed in range(200)]
    assert {f["lora.r"] for f in found} == {8} and {f["lora.lora_alpha"] for f in found} == {16}
    rates = [f[RATE] for f in found]
    beside = [rate for rate in rates if rate in (0.8e-3, 1.2e-3)]
    assert 120 < len(beside) < 180  # three quarters
    assert len({rate for rate in rates if rate not in beside}) == 200 - len(beside)
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert {f[WARMUP] for f in found} >= {0.0, 0.1}


def test_a_value_stays_within_its_domain():
    top = {**SETTINGS, RATE: 1e-2, WARMUP: 0.2}
    found = [varied(SPACE, top, Dice(seed)) for seed in range(50)]
    assert max(f[RATE] for f in found) == 1e-2
    assert {f[WARMUP] for f in found} <= {0.0, 0.05, 0.1, 0.2}


def test_a_trial_that_goes_on_from_another_keeps_its_name():
    population = Population(SPACE, 10, seed=0)
    own = Proposal("t01", {**SETTINGS, "lora.r": 4, "lora.lora_alpha": 8}, 0, copies=1)
    trials: list[Any] = [
        SimpleNamespace(config={PROPOSAL: found}) for found in (own, Proposal("t02", SETTINGS, 1))
    ]
    config, _ = population._get_new_config(*trials)  # pyright: ignore[reportPrivateUsage]
    copy = config[PROPOSAL]
    assert (copy.name, copy.token, copy.copied_from, copy.copies) == ("t01", 0, "t02", 2)
    assert copy.settings["lora.r"] == 8 and copy.settings[RATE] != SETTINGS[RATE]


def checkpoint(folder: Path, step: int) -> None:
    path = folder / f"step-{step:06d}"
    path.mkdir(parents=True)
    (path / "state").write_text(f"state of {step}", encoding="utf-8")
    manifest.write(path, {})


def test_all_checkpoints_of_the_better_trial_are_copied(tmp_path: Path):
    better, own = tmp_path / "better", tmp_path / "checkpoints-1"
    checkpoint(better, 10)
    checkpoint(better, 20)
    (better / ".step-000030.abcd.partial").mkdir()  # it writes the next
    checkpoint(own, 5)  # of an attempt that was cut off
    assert copy_state(better, own) == 20
    assert sorted(path.name for path in own.iterdir()) == ["step-000010", "step-000020"]
    assert (own / "step-000020" / "state").read_text(encoding="utf-8") == "state of 20"


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path: Path):
    with pytest.raises(RayloraError, match="no checkpoint to go on from"):
        copy_state(tmp_path / "nothing", tmp_path / "own")


@pytest.mark.ray
@pytest.mark.slow  # a minute
def test_a_population_on_a_cluster(tiny_base: Path, tmp_path: Path, local_cluster: Cluster):
    rows = scripted.write_rows(tmp_path / "rows.jsonl")
    training = {"max_steps": 20, "save_steps": 5}
    base = scripted.spec_of(tiny_base, rows, rows, training=training).model_dump(mode="json")
    search = {
        "space": {
            "lora.r": {"choice": [2, 8]},
            RATE: {"choice": [1e-6, 1e-2, 2e-2]},
        },
        "searcher": "grid",
        "scheduler": "pbt",
        "trials": 6,
        "on_finish": {"register": False},
    }
    outputs = str(tmp_path / "outputs")
    spec = SweepSpec.model_validate(
        {**base, "name": "population", "outputs": outputs, "sweep": search}
    )
    client, run_id = JobClient(local_cluster), new_run_id()
    arguments = ["spec.yaml", "--run-id", run_id, "--config", "population.yaml"]
    client.submit("raylora.sweeps.search", arguments, build(resolved_yaml(spec)), run_id=run_id)
    log = "\n".join(client.follow(run_id))
    assert client.status(run_id).state is JobState.SUCCEEDED, client.logs(run_id)[-4000:]

    sweep = get_sweep(f"sqlite:///{outputs}/mlflow.db", run_id)
    names = [trial.name for trial in sweep.trials]
    assert len(names) == 6
    changed = [trial for trial in sweep.trials if trial.copies]
    assert changed, log[-4000:]
    for trial in sweep.trials:
        assert trial.state is TrialStatus.FINISHED and trial.step == 20
        places = run_dir(outputs, "default", trial.run_id)
        assert verify(places.adapter).r == trial.settings["lora.r"]
        assert bool(trial.submit) is not bool(trial.copies)
        # The worst of them would still be where it began.
        assert trial.metrics["loss"] < 0.9 * first_loss(places.logs)
    for trial in changed:
        for copy in trial.copies:
            assert copy["from"] in names and copy["from"] != trial.name
            assert copy["step"] in (5, 10, 15)
        assert trial.copies[-1]["settings"] == trial.settings


def first_loss(logs: Path) -> float:
    line = (logs / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0]
    return json.loads(line)["loss"]
