"""A slot with two workers over gloo: the same trials as with one, and no worker waits in vain."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.sweeps import scripted

from raylora.sweeps.orders import TrialState
from raylora.sweeps.slot import run_slot

WORLD = 2
# Of 5 rows in micro-batches of 2 the first worker has two, the second one: it must not run ahead.
TRIALS: dict[str, dict[str, Any]] = {
    "odd": {
        "lora": {"r": 8},
        "training": {"global_batch_size": 5, "validation_steps": 2, "validation_rows": 3},
    },
    "small": {"training": {"global_batch_size": 3, "micro_batch_size": 4, "seed": 1}},
    "single": {"training": {"micro_batch_size": 1, "learning_rate": 1e-3}},
}
DIVERGES = {"training": {"learning_rate": 1e30, "max_grad_norm": 1e30}}
SCENARIOS: dict[str, dict[str, Any]] = {
    "alike": {"trials": {**TRIALS, "diverges": DIVERGES}, "end_after": {"single": 2}},
    "one has no rows": {"trials": {"lost": {"rows": "own.jsonl"}, "odd": TRIALS["odd"]}},
    "one is short": {"trials": TRIALS, "short": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    scripted.write_rows(folder / "rows.jsonl")
    for rank in range(WORLD):
        (folder / f"worker-{rank}").mkdir()
    scripted.write_rows(folder / "worker-0" / "own.jsonl")
    return folder


@pytest.fixture(scope="module")
def two(folder: Path, tiny_base: Path) -> dict[str, Any]:
    """What became of the trials of each scenario."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {"world": WORLD, "port": port, "folder": str(folder), "base": str(tiny_base)}
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, str(scripted.__file__)),
                json.dumps({**settings, "scenarios": SCENARIOS, "rank": rank}),
            ],
            stdout=subprocess.PIPE,
            env=os.environ,
            text=True,
        )
        for rank in range(WORLD)
    ]
    printed = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * WORLD
    return json.loads(printed[0].strip().splitlines()[-1])


@pytest.fixture(scope="module")
def one(folder: Path, tiny_base: Path, process_group: None) -> dict[str, dict[str, Any]]:
    """Losses of the same trials in a slot with one worker."""
    rows = folder / "rows.jsonl"
    specs = {name: scripted.spec_of(tiny_base, rows, rows, **t) for name, t in TRIALS.items()}
    trials = {name: scripted.begin(folder / "one", name, spec) for name, spec in specs.items()}
    run_slot(specs["odd"], scripted.Script(list(trials.values())))
    held_out = scripted.validations(trials["odd"])
    return {name: {"losses": scripted.losses(t)} for name, t in trials.items()} | {
        "held out": {"losses": held_out}
    }


def test_two_workers_train_trials_as_one_does(one: dict[str, Any], two: dict[str, Any]):
    found = two["alike"]
    for name in ("odd", "small"):
        assert found[name]["state"] == TrialState.FINISHED and found[name]["saved"]
        assert found[name]["losses"] == pytest.approx(one[name]["losses"], rel=1e-5)
    assert found["odd"]["validations"] == pytest.approx(one["held out"]["losses"], rel=1e-5)


def test_both_end_a_trial_that_is_ended_or_diverges(one: dict[str, Any], two: dict[str, Any]):
    found = two["alike"]
    assert found["single"]["state"] == TrialState.STOPPED and found["single"]["step"] == 4
    assert found["single"]["losses"] == pytest.approx(one["single"]["losses"][:4], rel=1e-5)
    assert found["diverges"]["state"] == TrialState.FAILED
    assert "training diverged" in found["diverges"]["error"]


def test_a_trial_that_fails_on_one_worker_fails_on_all(one: dict[str, Any], two: dict[str, Any]):
    found = two["one has no rows"]
    assert found["lost"]["state"] == TrialState.FAILED
    assert "own.jsonl" in found["lost"]["error"]
    assert found["odd"]["losses"] == pytest.approx(one["odd"]["losses"], rel=1e-5)


def test_all_take_less_where_one_has_no_memory(one: dict[str, Any], two: dict[str, Any]):
    for name in TRIALS:
        found = two["one is short"][name]
        assert found["state"] == TrialState.FINISHED
        # Sums of halves round otherwise, and steps at a high rate make more of that.
        assert found["losses"] == pytest.approx(one[name]["losses"], rel=1e-3)
