import pytest
import torch
from torch.nn import functional

from raylora.jobs.train import cross_entropy as module
from raylora.jobs.train.cross_entropy import cross_entropy

POSITIONS, VOCABULARY = 37, 301


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def _way(request, monkeypatch):
    """By the kernel where there is one, and without it."""
    if request.param == "torch":
        monkeypatch.setattr(module, "_kernel", lambda dtype: None)


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, targets, weights."""
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(POSITIONS, VOCABULARY, generator=generator)
    targets = torch.randint(VOCABULARY, (POSITIONS,), generator=generator)
    return logits.to(dtype), targets, torch.rand(POSITIONS, generator=generator)


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float32, 1e-5, 1e-6), (torch.bfloat16, 2**-7, 1e-5)]
)
def test_losses_and_gradients_are_those_of_torch(dtype, rtol, atol):
    logits, targets, weights = drawn(dtype)
    upstream = torch.linspace(0.5, 2, POSITIONS)
    exact = logits.double().requires_grad_()
    expected = functional.cross_entropy(exact, targets, reduction="none") * weights
    (gradient,) = torch.autograd.grad(expected, exact, upstream.double())

    mine = logits.requires_grad_()
    losses = cross_entropy(mine, targets, weights)
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    (found,) = torch.autograd.grad(losses, mine, upstream)
    torch.testing.assert_close(found.double(), gradient, rtol=rtol, atol=atol)


def test_logits_that_are_no_numbers_give_a_loss_that_is_none():
    logits, targets, weights = drawn(torch.float32)
    logits[3, 7] = torch.nan
    losses = cross_entropy(logits, targets, weights)
    assert losses.isnan().nonzero().flatten().tolist() == [3]
