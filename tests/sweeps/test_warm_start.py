"""A trial that begins with another one's weights."""

import numpy as np
import pytest
import torch

from raylora.config.places import RunPlaces
from raylora.config.train_spec import TrainSpec
from raylora.errors import RayloraError
from raylora.jobs.assignment import make_folders
from raylora.jobs.train.backend import ADAM_MOMENTS
from raylora.jobs.train.checkpoint import Checkpoints, Progress
from raylora.jobs.train.checkpoint_format import ADAM_STEPS, LOSS_SCALE
from raylora.sweeps.warm_start import resize, start_warm

LAYER = "base_model.model.layers.0.q_proj"
WIDTH, HEIGHT, RANK = 12, 10, 4


@pytest.fixture
def dice() -> np.random.Generator:
    return np.random.default_rng(0)


def spec(**lora) -> TrainSpec:
    return TrainSpec.model_validate({"lora": {"r": RANK, "lora_alpha": 8, **lora}})


@pytest.fixture
def parent(tmp_path):
    """A trial with one layer, at step 7."""
    places = RunPlaces(tmp_path / "parent")
    make_folders(places)
    torch.manual_seed(0)
    weights = {
        f"{LAYER}.lora_A.default.weight": torch.randn(RANK, WIDTH),
        f"{LAYER}.lora_B.default.weight": torch.randn(HEIGHT, RANK),
    }
    state = {f"weight/{key}": value for key, value in weights.items()}
    for moment in ADAM_MOMENTS:
        state |= {f"{moment}/{key}": torch.ones_like(value) for key, value in weights.items()}
    state |= {ADAM_STEPS: torch.tensor(7), LOSS_SCALE: torch.tensor([1.0, 0.0])}
    progress = Progress(7, 20, seed=1, data_digest="abc", losses=[1.0], validations=[])
    Checkpoints(places.checkpoints, 2).save(state, progress)
    return places


def newest(places: RunPlaces):
    checkpoint = Checkpoints(places.checkpoints, 2).newest()
    assert checkpoint is not None
    return checkpoint.load()


def product(places: RunPlaces) -> torch.Tensor:
    state, _ = newest(places)
    a, b = (state[f"weight/{LAYER}.lora_{part}.default.weight"] for part in "AB")
    return b @ a


@pytest.mark.parametrize(
    ("changed", "scale"),
    [
        ({}, 1.0),
        ({"r": 8}, 2.0),  # lora_alpha / r is half of what it was
        ({"r": 8, "lora_alpha": 16}, 1.0),
        ({"r": 8, "use_rslora": True}, 2 / (8 / 8**0.5)),
        ({"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"q_proj": 16}}, 1.0),
    ],
)
def test_the_child_computes_what_the_parent_did(parent, tmp_path, changed, scale):
    child = RunPlaces(tmp_path / "child")
    make_folders(child)
    new = spec(**changed)
    start_warm(spec(), parent, new, child)
    assert torch.allclose(product(child), scale * product(parent), atol=1e-5)
    state, progress = newest(child)
    rank = 8 if changed else RANK
    assert state[f"weight/{LAYER}.lora_A.default.weight"].shape == (rank, WIDTH)
    assert (progress.step, progress.losses, progress.data_digest) == (0, [], "abc")
    assert progress.seed == new.training.seed
    assert int(state[ADAM_STEPS]) == 0
    for moment in ADAM_MOMENTS:
        assert not state[f"{moment}/{LAYER}.lora_B.default.weight"].any()


def test_a_child_that_has_begun_keeps_its_own_weights(parent, tmp_path):
    child = RunPlaces(tmp_path / "child")
    make_folders(child)
    start_warm(spec(), parent, spec(), child)
    before = product(child)
    start_warm(spec(), parent, spec(lora_alpha=16), child)
    assert torch.equal(product(child), before)


def test_what_does_not_fit_is_refused(parent, tmp_path):
    child = RunPlaces(tmp_path / "child")
    with pytest.raises(RayloraError, match="do not fit"):
        start_warm(spec(), parent, spec(target_modules=["q_proj"]), child)
    with pytest.raises(RayloraError, match="no checkpoint"):
        start_warm(spec(), child, spec(), RunPlaces(tmp_path / "other"))


def test_a_smaller_rank_is_the_nearest_product(dice):
    a = dice.standard_normal((6, WIDTH)).astype(np.float32)
    b = dice.standard_normal((HEIGHT, 6)).astype(np.float32)
    small_a, small_b = resize(a, b, 3, 2.0, dice)
    assert small_a.shape == (3, WIDTH) and small_b.shape == (HEIGHT, 3)
    u, s, v = np.linalg.svd(2.0 * b @ a)
    assert np.allclose(small_b @ small_a, (u[:, :3] * s[:3]) @ v[:3], atol=1e-4)


def test_a_larger_rank_gives_the_same_product_and_room_to_learn(dice):
    a = dice.standard_normal((2, WIDTH)).astype(np.float32)
    b = dice.standard_normal((HEIGHT, 2)).astype(np.float32)
    large_a, large_b = resize(a, b, 6, 1.0, dice)
    assert np.allclose(large_b @ large_a, b @ a, atol=1e-5)
    assert np.linalg.matrix_rank(large_a) == 6 and not large_b[:, 2:].any()
