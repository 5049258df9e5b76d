import pytest
import torch
from torch.nn import functional

from raylora.jobs.train import attention, softmax
from raylora.jobs.train.attention import Documents, packed_attention

LENGTHS = (5, 1, 12, 3)


def inputs(heads: int, kv_heads: int, size: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, n, sum(LENGTHS), size, generator=generator).requires_grad_()
        for n in (heads, kv_heads, kv_heads)
    ]


def one_by_one(query, key, value, window=None, softcap=None) -> torch.Tensor:
    """Each document alone, by the definition: [1, T, heads, size]."""
    outputs = []
    for q, k, v in zip(*(x.split(LENGTHS, 2) for x in (query, key, value)), strict=True):
        groups, length = q.shape[1] // k.shape[1], q.shape[2]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        behind = torch.arange(length)[:, None] - torch.arange(length)
        hidden = (behind < 0) | (behind >= (window or length))
        outputs.append(functional.softmax(scores.masked_fill(hidden, -torch.inf), -1) @ v)
    return torch.cat(outputs, 2).transpose(1, 2)


@pytest.mark.parametrize("block", [256, 4, 1])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize("settings", [{}, {"window": 3}, {"softcap": 0.5}])
@pytest.mark.parametrize("compiled", [True, False])
def test_documents_attend_as_if_alone(monkeypatch, block, heads, kv_heads, settings, compiled):
    monkeypatch.setattr(attention, "BLOCK", block)
    if not compiled:
        monkeypatch.setattr(softmax, "kernels", lambda dtype: None)
    query, key, value = parts = inputs(heads, kv_heads)
    expected = one_by_one(*parts, **settings)
    grad = torch.randn_like(expected)
    reference = torch.autograd.grad(expected, parts, grad)

    documents = Documents(LENGTHS, torch.device("cpu"))
    ours, _ = packed_attention(
        torch.nn.Identity(),
        query,
        key,
        value,
        None,
        documents=documents,
        sliding_window=settings.get("window"),
        softcap=settings.get("softcap"),
    )
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(torch.autograd.grad(ours, parts, grad), reference, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_offsets_are_cumulated_lengths():
    assert Documents(LENGTHS, torch.device("cpu")).offsets.tolist() == [0, 5, 6, 18, 21]
