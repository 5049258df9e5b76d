from typing import Any

import pytest
import torch
from tests.jobs.train.tiny import llama
from torch import Tensor, nn
from transformers.models.llama import modeling_llama
from transformers.models.phi3 import modeling_phi3

from raylora.jobs.train import rotary
from raylora.jobs.train.rotary import fuse_rotations

SIZE, TOKENS = 16, 37


@pytest.fixture(autouse=True)
def families(monkeypatch) -> None:
    """As transformers has them, and as they were found after the test."""
    for family in (modeling_llama, modeling_phi3):
        own: Any = family.apply_rotary_pos_emb
        monkeypatch.setattr(family, "apply_rotary_pos_emb", getattr(own, "_own", own))


def layer(family: Any, name: str) -> nn.Module:
    """Without weights: only its class is looked at."""
    kind: Any = getattr(family, f"{name}Attention")
    found = kind.__new__(kind)
    nn.Module.__init__(found)
    return found


def outcome(family: Any, dtype: torch.dtype, rotated: int = SIZE, batch: int = 1) -> list[Tensor]:
    """Queries of 6 heads and keys of 2 that lie as projections give them, and their gradients."""
    drawn = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=drawn).to(dtype)

    q, k = (draw(batch, TOKENS, heads, SIZE).transpose(1, 2).requires_grad_() for heads in (6, 2))
    angles = draw(batch, TOKENS, rotated // 2).float().repeat(1, 1, 2)
    turned = family.apply_rotary_pos_emb(q, k, angles.cos().to(dtype), angles.sin().to(dtype))
    upstream = [draw(*part.shape) for part in turned]
    return [*(part.detach() for part in turned), *torch.autograd.grad(turned, [q, k], upstream)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("threads", [1, 2])
def test_gives_transformers_bits(monkeypatch, dtype, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    theirs = outcome(modeling_llama, dtype)
    fuse_rotations(layer(modeling_llama, "Llama"))
    ours = outcome(modeling_llama, dtype)
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("rotated", "batch"), [(SIZE // 2, 1), (SIZE, 3)])
def test_leaves_parts_of_a_head_and_several_rows_to_transformers(rotated, batch):
    theirs = outcome(modeling_phi3, torch.float32, rotated, batch)
    assert fuse_rotations(layer(modeling_phi3, "Phi3")) == 1
    ours = outcome(modeling_phi3, torch.float32, rotated, batch)
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_transformers_has_its_turn_without_a_compiler(monkeypatch):
    theirs = outcome(modeling_llama, torch.float32)
    monkeypatch.setattr(rotary, "_kernel", lambda dtype: None)
    fuse_rotations(layer(modeling_llama, "Llama"))
    ours = outcome(modeling_llama, torch.float32)
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_a_model_rotates_so_and_only_once_however_often_it_is_told():
    model, ids = llama(), torch.arange(TOKENS)[None]
    theirs = model(input_ids=ids).logits
    assert fuse_rotations(model) == fuse_rotations(model) == 2
    once: Any = modeling_llama.apply_rotary_pos_emb
    assert not hasattr(once._own, "_own")
    assert torch.equal(model(input_ids=ids).logits, theirs)


def test_leaves_other_families_as_they_are():
    assert fuse_rotations(nn.Sequential(nn.Linear(2, 2))) == 0
