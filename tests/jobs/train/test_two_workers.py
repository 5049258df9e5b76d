"""Two worker processes over gloo, with nothing on PATH: no compiler, no ninja."""

import shutil
from typing import Any

import pytest

NO_COMPILER = {"PATH": "", "DS_ACCELERATOR": "cpu"}

# 5 rows a step: one worker has 3, the other 2, in micro-batches of 2.
TRAINING = {
    "global_batch_size": 5,
    "micro_batch_size": 2,
    "weight_decay": 0.01,
    "validation_steps": 3,
    "validation_rows": 5,
}
WORKERS = {
    "torch": {"backend": "torch"},
    "zero 0": {"backend": "deepspeed", "zero_stage": 0},
    "zero 1": {"zero_stage": 1},
    "zero 2": {"zero_stage": 2},
    "zero 3": {"zero_stage": 3},
    "zero 2, offloaded": {"zero_stage": 2, "offload": True},
    "zero 3, offloaded": {"zero_stage": 3, "offload": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def one_worker(process_group, tiny, folder):
    """What one plain worker makes of the same global batches, and its recorder."""
    recorder = tiny.Recorder()
    run = tiny.TinyRun(
        str(folder / "one"), workers=WORKERS["torch"], training=TRAINING, held_out=5
    )
    _, _, backend = run.train(recorder)
    return recorder, tiny.size_of(backend.gather_state())


@pytest.fixture(scope="module")
def two_workers(run_workers, folder):
    """What each of the two said of each kind of run."""
    runs: dict[str, dict[str, Any]] = {
        name: {
            "directory": str(folder / name),
            "workers": workers,
            "training": TRAINING,
            "held_out": 5,
        }
        for name, workers in WORKERS.items()
    }
    runs["short"] = {**runs["zero 2"], "directory": str(folder / "short"), "room": [1, 1]}
    said = run_workers(2, NO_COMPILER, list(runs.values()))
    return [dict(zip(runs, of_worker, strict=True)) for of_worker in said]


@pytest.mark.parametrize("name", WORKERS)
def test_two_workers_train_what_one_trains(one_worker, two_workers, name):
    recorder, size = one_worker
    first, second = (said[name] for said in two_workers)
    assert first["losses"] == pytest.approx(recorder.losses, rel=1e-5)
    assert first["losses"] == second["losses"]
    assert first["size"] == pytest.approx(size, rel=1e-5) and second["size"] is None
    expected = [validation.loss for validation in recorder.validations]
    assert first["validations"] == pytest.approx(expected, rel=1e-5)
    assert first["memory"] == second["memory"] and min(first["memory"]) > 1_000_000


def test_all_take_smaller_micro_batches_where_one_has_no_memory(one_worker, two_workers):
    recorder, size = one_worker
    first, second = (said["short"] for said in two_workers)
    assert first["micro_batch_sizes"] == second["micro_batch_sizes"] == [1]
    assert first["losses"] == pytest.approx(recorder.losses, rel=1e-5)
    assert first["size"] == pytest.approx(size, rel=1e-5)


def test_zero_3_gives_each_worker_half_of_all_weights(two_workers):
    for said in two_workers:
        assert said["zero 3"]["held"] == pytest.approx(said["zero 2"]["held"] / 2, rel=0.01)


@pytest.mark.parametrize("name", ["torch", "zero 2", "zero 3"])
def test_a_run_of_two_workers_is_continued_by_one(
    one_worker, two_workers, tiny, folder, tmp_path, name
):
    shutil.copytree(folder / name, tmp_path / "two")
    # Damaged: the checkpoint of step 6 is the newest good one.
    (tmp_path / "two" / "step-000008" / "progress.json").unlink()
    recorder = tiny.Recorder()
    run = tiny.TinyRun(
        str(tmp_path / "two"), workers=WORKERS["torch"], training=TRAINING, held_out=5
    )
    _, _, backend = run.train(recorder)
    expected, size = one_worker
    assert recorder.resumed_at == 6
    assert recorder.losses == pytest.approx(expected.losses[6:], rel=1e-5)
    assert tiny.size_of(backend.gather_state()) == pytest.approx(size, rel=1e-5)
