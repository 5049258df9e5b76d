import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from raylora.jobs.train import swiglu
from raylora.jobs.train.fusion import unfused
from raylora.jobs.train.swiglu import fuse_gates

SIZE = 24


def mlp(dtype: torch.dtype, act: str = "silu") -> LlamaMLP:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=SIZE, intermediate_size=2 * SIZE, num_attention_heads=2, hidden_act=act
    )
    return LlamaMLP(config).to(dtype).requires_grad_(False)


def outcome(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What it gives, and the gradient of its input."""
    x = x.detach().requires_grad_()
    y = module(x)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, x, upstream)]


def rows(dtype: torch.dtype) -> torch.Tensor:
    return (4 * torch.randn(3, 50, SIZE, generator=torch.Generator().manual_seed(2))).to(dtype)


@pytest.mark.parametrize("compiled", [True, False])
def test_gives_what_the_layer_gives(monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr(swiglu, "_kernels", lambda dtype: None)
    module, x = mlp(torch.float32), rows(torch.float32)
    assert fuse_gates(nn.Sequential(module)) == 1
    ours = outcome(module, x)
    with unfused(module):
        theirs = outcome(module, x)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_rounds_in_bf16_as_little_as_the_layer():
    module, x = mlp(torch.bfloat16), rows(torch.bfloat16)
    fuse_gates(nn.Sequential(module))
    ours = outcome(module, x)
    with unfused(module):
        theirs = outcome(module, x)
        exact = outcome(mlp(torch.bfloat16).double(), x.double())
    for mine, other, right in zip(ours, theirs, exact, strict=True):
        error, allowed = ((got - right).norm() / right.norm() for got in (mine, other))
        assert error < 1.1 * allowed


def test_large_gates_do_not_overflow():
    kernels = swiglu._kernels(torch.float32)
    if kernels is None:
        pytest.skip("no C compiler")
    gate = torch.tensor([-1e30, -200.0, 0.0, 200.0, 1e30, torch.nan], requires_grad=True)
    found = swiglu._SwiGlu.apply(gate, torch.ones(6), kernels)
    (grad,) = torch.autograd.grad(found.sum(), gate)
    expected = functional.silu(gate.detach())
    torch.testing.assert_close(found.detach(), expected, equal_nan=True)
    assert grad[:5].isfinite().all()
    assert grad[5].isnan()


def test_leaves_other_activations_as_they_are():
    assert fuse_gates(nn.Sequential(mlp(torch.float32, "gelu"))) == 0
