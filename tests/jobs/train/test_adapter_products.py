"""The compiled products against torch's, and against what is right."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import pytest
import torch
from torch import Tensor

from raylora.jobs.train import adapter_products
from raylora.jobs.train.adapter_blocks import BlockProducts, Share
from raylora.jobs.train.adapter_products import MOST_TOKENS, products_of
from raylora.jobs.train.lora_linear import Products
from raylora.jobs.train.route import Adapter, Part, Route

BF16 = torch.bfloat16

compiled = pytest.mark.skipif(
    adapter_products._kernels(BF16) is None, reason="no C compiler, or no matrix units"
)


class Case:
    """A layer with adapters of these ranks, over so many tokens each."""

    def __init__(
        self, ranks: Sequence[int], tokens: Sequence[int], sizes: tuple[int, int]
    ) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(BF16)

        edges = list(pairwise([0, *accumulate(tokens)]))
        self.parts = [Part(str(i), slice(*edge)) for i, edge in enumerate(edges)]
        self.adapters = [Adapter(rank, 2.0 / (i + 1), 0.0) for i, rank in enumerate(ranks)]
        self.x, self.grad = draw(sum(tokens), sizes[0]), draw(sum(tokens), sizes[1])
        self.y, self.d_x = torch.zeros_like(self.grad), torch.zeros_like(self.x)
        self.pairs = [
            matrix for rank in ranks for matrix in (draw(rank, sizes[0]), draw(sizes[1], rank))
        ]

    def compiled(self) -> Products:
        found = products_of(self.parts, self.adapters, self.x, self.grad.shape[1])
        assert found is not None
        return found

    def by_torch(self) -> Products:
        blocks = Route(self.parts).blocks(tuple(self.adapters), self.x)
        return BlockProducts([Share(block, lambda rows: None) for block in blocks])

    def outcome(self, products: Products, dtype: torch.dtype = BF16) -> list[Tensor]:
        """y, d_x, and the gradients of the pairs."""
        x, grad, y, d_x = (t.to(dtype) for t in (self.x, self.grad, self.y, self.d_x))
        y, d_x = y.clone(), d_x.clone()
        kept = products.add(x, y, [matrix.to(dtype) for matrix in self.pairs])
        return [y, d_x, *products.gradients(grad, x, kept, d_x)]


CASES = [
    ((16,), (96,), (576, 576)),
    ((4, 8, 16, 32), (96, 64, 7, 33), (192, 96)),
    ((2, 6, 20, 32, 64), (1, 2, 9, 40, 31), (32, 160)),
    ((128,), (24,), (64, 1536)),
]


@compiled
@pytest.mark.parametrize("case", CASES)
def test_is_as_near_to_what_is_right_as_torch(case):
    layer = Case(*case)
    exact = layer.outcome(layer.by_torch(), torch.float64)
    ours, theirs = layer.outcome(layer.compiled()), layer.outcome(layer.by_torch())
    for mine, other, right in zip(ours, theirs, exact, strict=True):
        assert mine.shape == right.shape
        error, allowed = ((got.double() - right).norm() / right.norm() for got in (mine, other))
        assert error < 1.05 * allowed


@compiled
def test_adds_to_what_is_there():
    layer = Case(*CASES[1])
    y, d_x = layer.outcome(layer.compiled())[:2]
    layer.y, layer.d_x = torch.full_like(layer.y, 64.0), torch.full_like(layer.d_x, -8.0)
    found, d_found = layer.outcome(layer.compiled())[:2]
    torch.testing.assert_close(found, y + 64, rtol=1e-2, atol=0.5)
    torch.testing.assert_close(d_found, d_x - 8, rtol=1e-2, atol=0.1)


@compiled
@pytest.mark.parametrize("threads", [1, 2])
def test_a_part_has_the_numbers_that_it_has_alone(threads):
    ranks, tokens, sizes = CASES[2]
    together = Case(ranks, tokens, sizes)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y, d_x, *gradients = together.outcome(together.compiled())
    finally:
        torch.set_num_threads(before)
    for i, part in enumerate(together.parts):
        alone = Case(ranks[i : i + 1], tokens[i : i + 1], sizes)
        alone.adapters, alone.pairs = [together.adapters[i]], together.pairs[2 * i : 2 * i + 2]
        alone.x, alone.grad = together.x[part.tokens], together.grad[part.tokens]
        own_y, own_d_x, *own = alone.outcome(alone.compiled())
        assert torch.equal(own_y, y[part.tokens])
        assert torch.equal(own_d_x, d_x[part.tokens])
        for mine, theirs in zip(own, gradients[2 * i : 2 * i + 2], strict=True):
            assert torch.equal(mine, theirs)


@compiled
def test_the_first_layer_has_no_gradient_of_its_input():
    layer = Case(*CASES[1])
    products = layer.compiled()
    kept = products.add(layer.x, layer.y.clone(), layer.pairs)
    found = products.gradients(layer.grad, layer.x, kept, None)
    for mine, other in zip(found, layer.outcome(products)[2:], strict=True):
        assert torch.equal(mine, other)


@compiled
def test_all_tokens_of_a_row_may_be_one_part():
    layer = Case((16,), (10,), (64, 64))
    found = layer.outcome(layer.compiled())
    layer.parts = [Part("0", slice(None))]
    for mine, other in zip(layer.outcome(layer.compiled()), found, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("rank", "dropout", "width", "dtype"),
    [(3, 0.0, 64, BF16), (48, 0.0, 64, BF16), (4, 0.1, 64, BF16), (4, 0.0, 40, BF16)]
    + [(4, 0.0, 64, torch.float32)],
)
def test_leaves_the_rest_to_torch(rank, dropout, width, dtype):
    x = torch.zeros(1, 4, 32, dtype=dtype)
    adapters = [Adapter(rank, 1.0, dropout)]
    assert products_of([Part("a", slice(None))], adapters, x, width) is None


def test_leaves_long_parts_to_torch():
    x, adapters = torch.zeros(1, MOST_TOKENS + 1, 32, dtype=BF16), [Adapter(4, 1.0, 0.0)]
    assert products_of([Part("a", slice(None))], adapters, x, 64) is None
