"""Two worker processes over gloo, with nothing on PATH: no compiler, no ninja."""

import shutil

import pytest

NO_COMPILER = {"PATH": "", "DS_ACCELERATOR": "cpu"}


@pytest.fixture(scope="module")
def one_worker(process_group, tiny, tmp_path_factory):
    """Losses and adapter of the run that one worker makes of the same global batches."""
    recorder = tiny.Recorder()
    model = tiny.TinyRun(str(tmp_path_factory.mktemp("one"))).start(recorder)
    return recorder.losses, tiny.size_of(model)


@pytest.fixture(scope="module")
def two_workers(run_workers, tmp_path_factory):
    """The run's directory, and what each of the two printed."""
    directory = tmp_path_factory.mktemp("two")
    return directory, run_workers(2, NO_COMPILER, directory=str(directory))


def test_two_workers_without_a_compiler_train_what_one_trains(one_worker, two_workers):
    losses, size = one_worker
    first, second = two_workers[1]
    assert first["losses"] == pytest.approx(losses, rel=1e-5)
    assert first["losses"] == second["losses"]
    assert first["size"] == second["size"] == pytest.approx(size, rel=1e-5)


def test_a_run_of_two_workers_is_continued_by_one(one_worker, two_workers, tiny, tmp_path):
    shutil.copytree(two_workers[0], tmp_path / "two")
    # Damaged: the checkpoint of step 6 is the newest good one.
    (tmp_path / "two" / "step-000008" / "progress.json").unlink()
    recorder = tiny.Recorder()
    model = tiny.TinyRun(str(tmp_path / "two")).start(recorder)
    assert recorder.resumed_at == 6
    assert recorder.losses == pytest.approx(one_worker[0][6:], rel=1e-5)
    assert tiny.size_of(model) == pytest.approx(one_worker[1], rel=1e-5)
