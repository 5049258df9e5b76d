import pytest
import torch
from torch.nn import functional

from raylora.jobs.train import documents as groups
from raylora.jobs.train import softmax
from raylora.jobs.train.attention import packed_attention
from raylora.jobs.train.documents import Documents

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


@pytest.mark.parametrize(
    ("block", "short", "step"), [(256, 128, 32), (4, 0, 1), (1, 0, 1), (4, 3, 2), (256, 12, 1)]
)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize("settings", [{}, {"window": 3}, {"softcap": 0.5}])
@pytest.mark.parametrize("compiled", [True, False])
def test_documents_attend_as_if_alone(
    monkeypatch, block, short, step, heads, kv_heads, settings, compiled
):
    for name, number in {"BLOCK": block, "SHORT": short, "STEP": step}.items():
        monkeypatch.setattr(groups, name, number)
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


def test_what_else_is_in_a_row_changes_no_number_of_a_short_document():
    query, key, value = inputs(4, 2)
    together = Documents(LENGTHS, torch.device("cpu"))
    found, _ = packed_attention(torch.nn.Identity(), query, key, value, None, documents=together)
    first = Documents(LENGTHS[:1], torch.device("cpu"))
    q, k, v = (part[:, :, : LENGTHS[0]] for part in (query, key, value))
    alone, _ = packed_attention(torch.nn.Identity(), q, k, v, None, documents=first)
    assert torch.equal(found[:, : LENGTHS[0]], alone)


@pytest.mark.parametrize("lengths", [(10, 40, 14), (32, 40, 32), (32, 32, 7), (64, 100, 64)])
def test_short_documents_find_each_other_across_others(lengths):
    """The first has two that span as much as two of full length would."""
    query, key, value = parts = [
        torch.randn(1, n, sum(lengths), 8, generator=torch.Generator().manual_seed(n))
        for n in (4, 2, 2)
    ]
    documents = Documents(lengths, torch.device("cpu"))
    found, _ = packed_attention(torch.nn.Identity(), query, key, value, None, documents=documents)
    for own, out in zip(
        zip(*(part.split(lengths, 2) for part in parts), strict=True),
        found.split(lengths, 1),
        strict=True,
    ):
        q, k, v = (part.repeat_interleave(4 // part.shape[1], 1) for part in own)
        expected = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.testing.assert_close(out, expected.transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_offsets_are_cumulated_lengths():
    assert Documents(LENGTHS, torch.device("cpu")).offsets.tolist() == [0, 5, 6, 18, 21]
