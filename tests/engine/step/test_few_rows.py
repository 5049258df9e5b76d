"""Linear layers of a step: the numbers are torch's, and all else is left to the layers."""

import os
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raylora.engine.step.few_rows import MOST_ROWS, use_few_rows
from raylora.lora.devices import cpu_flags
from raylora.lora.narrow import narrow
from raylora.lora.native import Reads, Slots

HAS_COMPILER = shutil.which(os.environ.get("CC", "cc")) is not None
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="there is no C compiler")


def kind(name: str, flag: str) -> Any:
    missing = not HAS_COMPILER or flag not in cpu_flags()
    return pytest.param(
        name, marks=pytest.mark.skipif(missing, reason=f"needs {flag} and a C compiler")
    )


KINDS = [kind("fp32", "avx2"), kind("narrow", "avx2"), kind("bf16", "avx512_bf16")]
"""fp32 rows and weights, weights kept in bf16, and all in bf16."""


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Any:
    """make(width, outputs): a layer; its rows' dtype is `dtype`."""
    return Maker(request.param)


class Maker:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.dtype = torch.bfloat16 if kind == "bf16" else torch.float32

    def __call__(self, width: int, outputs: int, *, bias: bool = False) -> Any:
        one = nn.Linear(width, outputs, bias=bias).requires_grad_(False).to(self.dtype)
        if self.kind != "narrow":
            return one
        model = nn.Sequential(one.bfloat16().float())
        assert narrow(model) == 1
        return model[0]

    def rows(self, *shape: int) -> Tensor:
        return torch.randn(*shape).to(self.dtype)


def exactly(one: Any, x: Tensor) -> Tensor:
    bias = None if one.bias is None else one.bias.double()
    return nn.functional.linear(x.double(), one.weight.double(), bias)


@pytest.mark.parametrize("rows", [*range(1, 10), 15, 16, 17, 31, 64])
@pytest.mark.parametrize(
    ("width", "outputs", "bias"),
    [(32, 4, False), (608, 132, True), (45, 8, True), (1600, 12, False)],
)
def test_a_row_is_the_exact_product_rounded_once(
    make: Maker, rows: int, width: int, outputs: int, bias: bool
) -> None:
    one, x = make(width, outputs, bias=bias), make.rows(rows, 1, width)
    assert use_few_rows(one) == 1
    with torch.inference_mode():
        found = one(x)
    assert found.shape == (rows, 1, outputs) and found.dtype is make.dtype
    # Half a unit of bf16's 8 bits, and what fp32 sums are off.
    rtol = 2**-8 * 1.01 if make.dtype is torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.double(), exactly(one, x), rtol=rtol, atol=1e-5)


def test_a_row_does_not_depend_on_the_others(make: Maker) -> None:
    one, x = make(608, 132), make.rows(19, 608)
    use_few_rows(one)
    with torch.inference_mode():
        together = one(x)
        for row in range(19):
            assert torch.equal(one(x[row : row + 1])[0], together[row])


def test_what_is_no_number_stays_in_its_row(make: Maker) -> None:
    one, x = make(64, 8), make.rows(6, 64)
    use_few_rows(one)
    with torch.inference_mode():
        clean = one(x)
        x[2, 5], x[4, 0] = float("nan"), float("inf")
        found = one(x)
    assert found[2].isnan().all()
    assert not found[4].isfinite().any()
    others = [0, 1, 3, 5]
    assert torch.equal(found[others], clean[others])


def test_rows_that_lie_apart_and_threads(make: Maker) -> None:
    one, x = make(64, 40), make.rows(5, 3, 64)
    use_few_rows(one)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with torch.inference_mode():
            assert torch.equal(one(x[:, -1]), one(x[:, -1].clone()))
    finally:
        torch.set_num_threads(threads)


def test_many_rows_and_gradients_go_through_the_layer_itself(make: Maker) -> None:
    one, x = make(64, 8), make.rows(MOST_ROWS + 1, 64)
    own = type(one).forward(one, x)
    use_few_rows(one)
    with torch.inference_mode():
        assert torch.equal(one(x), own)
    if make.kind != "narrow":
        few = x[:3].clone().requires_grad_()
        one(few).sum().backward()
        assert few.grad is not None


def test_rows_of_another_format_go_through_the_layer_itself() -> None:
    one = nn.Linear(64, 8).requires_grad_(False)
    use_few_rows(one)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert one(torch.randn(2, 64).bfloat16()).dtype is torch.bfloat16


def test_numbers_are_the_same_whatever_is_fetched_beside(make: Maker) -> None:
    one = make(608, 132, bias=True)
    use_few_rows(one)
    own = vars(one)["forward"]
    stacks = torch.randn(5, 16, 608), torch.randn(9, 7)[:, :3]
    slots = torch.tensor([4, 0, 2]), torch.tensor([1])
    counts = torch.tensor([3, 1])
    told = [
        Slots(own.data_ptr(), count.data_ptr(), len(own))
        for own, count in zip(slots, counts, strict=True)
    ]
    soon = [Reads.of(stack, each) for stack, each in zip(stacks, told, strict=True)]
    for rows in (3, 16, 37):
        x, out, written = make.rows(rows, 608), make.rows(rows, 132), list[Tensor]()
        with torch.inference_mode():
            for fetched in (), soon:
                call = own.call(x, out, rows, fetched)
                call.function(*call.args)
                written.append(out.clone())
        alone, beside = written
        assert torch.equal(alone, beside)


def test_hooks_on_a_layer_see_its_output(make: Maker) -> None:
    one, seen = make(64, 8), list[Tensor]()
    one.register_forward_hook(lambda module, args, out: seen.append(out))
    use_few_rows(one)
    with torch.inference_mode():
        out = one(make.rows(2, 64))
    assert seen[0] is out


def test_layers_that_do_not_fit_are_left_as_they_are() -> None:
    odd = nn.ModuleList([nn.Linear(64, 7), nn.Linear(64, 8).double(), nn.LayerNorm(64)])
    assert use_few_rows(odd) == 0


def test_a_model_is_changed_once() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8)).requires_grad_(False)
    use_few_rows(model)
    assert use_few_rows(model) == 0


@needs_compiler
@pytest.mark.parametrize(("dtype", "flag"), [(torch.float32, "sse2"), (torch.bfloat16, "avx2")])
def test_a_processor_without_the_instructions_has_none(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, flag: str
) -> None:
    monkeypatch.setattr("raylora.engine.step.few_rows.cpu_flags", lambda: frozenset({flag}))
    assert use_few_rows(nn.Linear(64, 8).to(dtype)) == 0
