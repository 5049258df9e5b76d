from typing import Any

import torch
from torch import nn

from raylora.jobs.train.fusion import fuse, unfused


def test_a_module_s_own_class_can_have_its_turn():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.ones(1, 3)
    own = model(x)
    fuse(model[0], lambda x: x * 7)
    fused = model(x)
    with unfused(model):
        assert torch.equal(model(x), own)
    assert torch.equal(fused, torch.full((1, 3), 7.0)) and torch.equal(model(x), fused)


def test_a_forward_pass_that_others_have_set_stays():
    module: Any = nn.ReLU()
    module.forward = lambda x: x * 2
    with unfused(nn.Sequential(module)):
        assert module(torch.ones(1)) == 2
