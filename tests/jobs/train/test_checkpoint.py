import random
from pathlib import Path

import pytest
import torch

from raylora.jobs.train.checkpoint import Checkpoints, Progress


def state(value: float) -> dict[str, torch.Tensor]:
    return {"weight/a": torch.full((3, 5), value), "exp_avg/a": torch.full((3, 5), -value)}


def progress(step: int) -> Progress:
    return Progress(step=step, total_steps=100, seed=7, data_digest="d")


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    made = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (5, 10, 15):
        made.save(state(step), progress(step))
    return made


def test_a_new_run_has_none(tmp_path):
    assert Checkpoints(tmp_path / "nothing", keep=2).newest() is None


def test_the_newest_comes_back_as_it_was(checkpoints):
    tensors, where = checkpoints.newest().load()
    assert where == progress(15)
    assert tensors.keys() == state(15).keys()
    assert all(torch.equal(tensors[key], value) for key, value in state(15).items())


def test_only_the_newest_are_kept(checkpoints):
    assert not checkpoints.path(5).exists()
    assert checkpoints.path(10).exists() and checkpoints.path(15).exists()


@pytest.mark.parametrize("seed", range(10))
def test_any_damage_falls_back_to_the_one_before_and_says_so(checkpoints, seed, caplog):
    draw = random.Random(seed)
    file = draw.choice(sorted(checkpoints.path(15).iterdir()))
    content = bytearray(file.read_bytes())
    place = draw.randrange(len(content))
    if seed % 2:
        del content[place:]
    else:
        content[place] ^= 1 << draw.randrange(8)
    file.write_bytes(content)

    _, where = checkpoints.newest().load()

    assert where.step == 10
    assert "step-000015 is damaged" in caplog.text


def test_a_step_whose_checkpoint_was_damaged_can_be_saved_again(checkpoints):
    (checkpoints.path(15) / "state.safetensors").unlink()
    checkpoints.newest()
    checkpoints.save(state(16), progress(15))
    tensors, _ = checkpoints.newest().load()
    assert torch.equal(tensors["weight/a"], state(16)["weight/a"])


def test_no_half_checkpoint_is_left_where_the_disk_is_full(checkpoints, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("raylora.jobs.train.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(state(20), progress(20))
    assert checkpoints.newest().load()[1].step == 15
    assert sorted(p.name for p in checkpoints.path(15).parent.iterdir()) == [
        "step-000010",
        "step-000015",
    ]
