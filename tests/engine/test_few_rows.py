"""Linear layers of a step: the numbers are torch's, and all else is left to the layers."""

import os
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raylora.engine.few_rows import MOST_ROWS, use_few_rows
from raylora.lora.devices import cpu_flags

needs_units = pytest.mark.skipif(
    "avx512_bf16" not in cpu_flags() or shutil.which(os.environ.get("CC", "cc")) is None,
    reason="this CPU has no such instructions, or there is no C compiler",
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def layer(width: int, outputs: int, *, bias: bool = False, dtype: Any = torch.bfloat16) -> Any:
    return nn.Linear(width, outputs, bias=bias).to(dtype).requires_grad_(False)


def exactly(one: Any, x: Tensor) -> Tensor:
    bias = None if one.bias is None else one.bias.double()
    return nn.functional.linear(x.double(), one.weight.double(), bias)


@needs_units
@pytest.mark.parametrize("rows", [*range(1, 10), 16, 31, 64])
@pytest.mark.parametrize(
    ("width", "outputs", "bias"), [(32, 4, False), (608, 132, True), (45, 8, True)]
)
def test_a_row_is_the_exact_product_rounded_once(
    rows: int, width: int, outputs: int, bias: bool
) -> None:
    one, x = layer(width, outputs, bias=bias), torch.randn(rows, 1, width).bfloat16()
    assert use_few_rows(one) == 1
    with torch.inference_mode():
        found = one(x)
    assert found.shape == (rows, 1, outputs)
    # Half a unit of bf16's 8 bits, and what fp32 sums are off.
    torch.testing.assert_close(found.double(), exactly(one, x), rtol=2**-8 * 1.01, atol=1e-5)


@needs_units
def test_a_row_does_not_depend_on_the_others() -> None:
    one, x = layer(608, 132), torch.randn(7, 608).bfloat16()
    use_few_rows(one)
    with torch.inference_mode():
        together = one(x)
        for row in range(7):
            assert torch.equal(one(x[row : row + 1])[0], together[row])


@needs_units
def test_what_is_no_number_stays_in_its_row() -> None:
    one, x = layer(64, 8), torch.randn(6, 64).bfloat16()
    use_few_rows(one)
    with torch.inference_mode():
        clean = one(x)
        x[2, 5], x[4, 0] = float("nan"), float("inf")
        found = one(x)
    assert found[2].isnan().all()
    assert not found[4].isfinite().any()
    others = [0, 1, 3, 5]
    assert torch.equal(found[others], clean[others])


@needs_units
def test_rows_that_lie_apart_and_threads() -> None:
    one, x = layer(64, 40), torch.randn(5, 3, 64).bfloat16()
    use_few_rows(one)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with torch.inference_mode():
            assert torch.equal(one(x[:, -1]), one(x[:, -1].clone()))
    finally:
        torch.set_num_threads(threads)


@needs_units
def test_many_rows_and_gradients_go_through_the_layer_itself() -> None:
    one, x = layer(64, 8), torch.randn(MOST_ROWS + 1, 64).bfloat16()
    own = nn.functional.linear(x, one.weight)
    use_few_rows(one)
    with torch.inference_mode():
        assert torch.equal(one(x), own)
    few = x[:3].clone().requires_grad_()
    one(few).sum().backward()
    assert few.grad is not None


@needs_units
def test_hooks_on_a_layer_see_its_output() -> None:
    one, seen = layer(64, 8), list[Tensor]()
    one.register_forward_hook(lambda module, args, out: seen.append(out))
    use_few_rows(one)
    with torch.inference_mode():
        out = one(torch.randn(2, 64).bfloat16())
    assert seen[0] is out


def test_layers_that_do_not_fit_are_left_as_they_are() -> None:
    odd = nn.ModuleList([layer(64, 7), layer(64, 8, dtype=torch.float32), nn.LayerNorm(64)])
    assert use_few_rows(odd) == 0


def test_a_model_is_changed_once() -> None:
    model = nn.Sequential(layer(64, 64), layer(64, 8))
    use_few_rows(model)
    assert use_few_rows(model) == 0


def test_a_processor_without_the_instructions_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylora.engine.few_rows.cpu_flags", lambda: frozenset({"avx2"}))
    assert use_few_rows(layer(64, 8)) == 0
