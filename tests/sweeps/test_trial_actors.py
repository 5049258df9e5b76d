"""Stock Ray Tune over trials in the driver, on a real cluster: one actor, whatever is tried."""

import json
from pathlib import Path
from typing import Any

import pytest

from raylora.cluster.bundle import Bundle, build
from raylora.cluster.connect import Cluster
from raylora.cluster.jobs import JobClient

PROBE = """
import json
import os
from pathlib import Path

import ray
from ray import tune
from ray.tune.execution import tune_controller
from ray.tune.schedulers import FIFOScheduler, HyperBandScheduler

from raylora.errors import JobFailed
from raylora.sweeps.ledger import Proposal
from raylora.sweeps.orders import TrialReport, TrialState
from raylora.sweeps.thin_trial import PROPOSAL, ThinTrial
from raylora.sweeps.trial_actors import trials_in_driver

ray.init(address="auto", log_to_driver=False)


class Mailbox:
    # Trials report three times; t2 fails at its second.
    def __init__(self):
        self.steps = {}

    def advance(self, name):
        step = self.steps[name] = self.steps.get(name, 0) + 1
        if (name, step) == ("t2", 2):
            raise JobFailed("it diverged")
        state = TrialState.FINISHED if step == 3 else TrialState.WAITING
        return TrialReport(name, state, step, {"loss": float(name[1:]) / step})


class Watch(tune.Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info):
        told.append((trial.config[PROPOSAL].name, result["step"], result["loss"]))


told = []
stock = tune_controller.RayActorManager
mailbox = ray.remote(Mailbox).remote()
proposals = [Proposal(f"t{number}", {}, number) for number in range(1, 9)]
tuner = tune.Tuner(
    tune.with_resources(tune.with_parameters(ThinTrial, mailbox=mailbox), {"memory": 1}),
    param_space={PROPOSAL: tune.grid_search(proposals)},
    tune_config=tune.TuneConfig(
        metric="loss", mode="min", reuse_actors=True, scheduler=SCHEDULER
    ),
    run_config=tune.RunConfig(
        storage_path=str(Path("tune").absolute()), callbacks=[Watch()], verbose=0
    ),
)
with trials_in_driver():
    results = tuner.fit()
print("SEEN", json.dumps({
    "told": told,
    "errors": [str(error).strip().splitlines()[-1] for error in results.errors],
    "best": results.get_best_result().config[PROPOSAL].name,
    "processes": list({result.metrics["pid"] for result in results} - {os.getpid()}),
    "restored": tune_controller.RayActorManager is stock,
}))
"""


@pytest.mark.ray
def test_trials_take_no_process_and_fail_alone(local_cluster: Cluster, tmp_path: Path) -> None:
    seen = tuned(local_cluster, tmp_path, "FIFOScheduler()")
    whole = [[f"t{n}", step, n / step] for n in range(1, 9) if n != 2 for step in (1, 2, 3)]
    assert sorted(seen["told"]) == sorted([*whole, ["t2", 1, 2.0]])
    assert len(seen["errors"]) == 1 and "it diverged" in seen["errors"][0]
    assert seen["best"] == "t1"
    assert seen["processes"] == []
    assert seen["restored"]


@pytest.mark.ray
def test_a_scheduler_may_have_trials_wait(local_cluster: Cluster, tmp_path: Path) -> None:
    scheduler = "HyperBandScheduler(time_attr='step', max_t=3, reduction_factor=3)"
    seen = tuned(local_cluster, tmp_path, scheduler)
    steps = {name: step for name, step, _ in sorted(seen["told"])}
    assert set(steps) == {f"t{n}" for n in range(1, 9)}
    assert steps["t1"] == 3 and min(steps.values()) < 3
    assert all("it diverged" in error for error in seen["errors"])
    assert seen["best"] == "t1"


def tuned(cluster: Cluster, folder: Path, scheduler: str) -> dict[str, Any]:
    """What the probe has seen."""
    text = PROBE.replace("SCHEDULER", scheduler)
    (folder / "probe.py").write_text(text, encoding="utf-8")
    client = JobClient(cluster)
    job = client.submit("probe", [], Bundle(folder, build("{}\n").package))
    lines = list(client.follow(job))
    said = [line for line in lines if line.startswith("SEEN")]
    assert said, "\n".join(lines)[-4000:]
    return json.loads(said[0].removeprefix("SEEN"))
