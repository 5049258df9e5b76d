import pytest
import torch
from torch import nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.phi3.modeling_phi3 import Phi3RMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
from transformers.models.smollm3.modeling_smollm3 import SmolLM3RMSNorm

from raylora.jobs.train import rms_norm
from raylora.jobs.train.rms_norm import fuse_norms

SIZE = 48
FAMILIES = [
    LlamaRMSNorm,
    MistralRMSNorm,
    Phi3RMSNorm,
    Qwen2RMSNorm,
    Qwen3RMSNorm,
    SmolLM3RMSNorm,
]


@pytest.fixture(params=["compiled", "torch"])
def _way(request, monkeypatch):
    """By the kernel where there is one, and without it."""
    if request.param == "torch":
        monkeypatch.setattr(rms_norm, "_kernels", lambda dtype: None)


def norm(family, dtype=torch.float32, **options):
    made = family(SIZE, eps=1e-5)
    made.weight.data = torch.linspace(0.2, 3, SIZE)
    return made.to(dtype).requires_grad_(False)


def rows(dtype=torch.float32) -> torch.Tensor:
    drawn = torch.randn(4, 30, SIZE, generator=torch.Generator().manual_seed(0))
    return (drawn * torch.logspace(-3, 2, 30)[:, None]).to(dtype).requires_grad_()


def outcome(module, x) -> tuple[torch.Tensor, torch.Tensor]:
    """What it gives, and the gradient of its input."""
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    y = module(x)
    return y.detach(), torch.autograd.grad((y * upstream.to(y.dtype)).sum(), x)[0]


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("family", FAMILIES)
def test_gives_what_the_family_s_own_norm_gives(family):
    x, module = rows(), norm(family)
    expected = outcome(module, x)
    assert fuse_norms(nn.Sequential(module)) == 1
    for ours, theirs in zip(outcome(module, x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_way")
def test_rounds_in_bf16_as_little_as_the_family_s_own():
    x, module = rows(torch.bfloat16), norm(LlamaRMSNorm, torch.bfloat16)
    theirs = outcome(module, x)
    fuse_norms(nn.Sequential(module))
    ours = outcome(module, x)
    wide = x.detach().float().requires_grad_()
    exact = outcome(norm(LlamaRMSNorm), wide)
    # The gradient is in proportion to 1 / rms(x), so each row is judged by its own size.
    for mine, other, right in zip(ours, theirs, exact, strict=True):
        error, allowed = ((got - right).norm(dim=-1) / right.norm(dim=-1) for got in (mine, other))
        assert error.mean() < 1.3 * allowed.mean() + 1e-3
        assert error.max() < 0.01


@pytest.mark.usefixtures("_way")
def test_does_not_change_what_it_is_given():
    x, module = rows(), norm(LlamaRMSNorm)
    fuse_norms(nn.Sequential(module))
    before = x.detach().clone()
    outcome(module, x)
    assert torch.equal(x, before)


def test_leaves_trained_norms_and_other_formulas_as_they_are():
    trained = norm(LlamaRMSNorm).requires_grad_(True)
    assert fuse_norms(nn.Sequential(trained, Gemma2RMSNorm(SIZE).requires_grad_(False))) == 0
