import pytest
import torch

from raylora.jobs.train.softmax import Causal, kernels

HEADS, GROUPS, SCALE = 2, 3, 0.3


@pytest.fixture
def made():
    found = kernels(torch.bfloat16)
    if found is None:
        pytest.skip("no C compiler")
    return found


def hidden(queries: int, keys: int, window: int | None) -> torch.Tensor:
    """[queries * groups, keys]: what a query must not see."""
    behind = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
    found = (behind < 0) | (behind >= (window or keys))
    return found.repeat_interleave(GROUPS, 0)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 5), (7, 40), (33, 100)])
@pytest.mark.parametrize("window", [None, 4])
def test_is_the_softmax_of_what_is_seen_rounded_once(made, queries, keys, window):
    generator = torch.Generator().manual_seed(0)
    shape = (HEADS, queries * GROUPS, keys)
    scores = (10 * torch.randn(shape, generator=generator)).bfloat16()
    upstream = torch.randn(shape, generator=generator).bfloat16()
    out = hidden(queries, keys, window)
    exact = scores.double().requires_grad_()
    weights = (exact * SCALE).masked_fill(out, -torch.inf).softmax(-1)

    causal = Causal(queries, GROUPS, window)
    ours = causal.softmax_(scores.clone(), SCALE, made)
    torch.testing.assert_close(ours.double(), weights.detach(), rtol=2**-8, atol=1e-6)
    assert not ours[:, out].any()

    (expected,) = torch.autograd.grad(weights, exact, upstream.double())
    found = causal.backward_(upstream.clone(), ours, SCALE, made)
    torch.testing.assert_close(found.double(), expected, rtol=2**-6, atol=2e-3)
    assert not found[:, out].any()


def test_high_scores_do_not_overflow_and_no_number_stays_none(made):
    scores = torch.tensor([[[3e38, -3e38], [1.0, torch.nan]]]).bfloat16()
    found = Causal(1, 2, None).softmax_(scores, 1.0, made)
    assert found[0, 0].tolist() == pytest.approx([1, 0], abs=1e-30)
    assert found[0, 1].isnan().all()
