"""The compiled products against torch's."""

import os
import shutil
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from raylora.lora.bank import kernel
from raylora.lora.bank.batched import Batched
from raylora.lora.bank.compiled import Compiled
from raylora.lora.bank.kernel import Kernel
from raylora.lora.bank.layout import Layout, Layouts, Weights
from raylora.lora.bank.stacks import Stack

CPU = torch.device("cpu")
SHAPES = {"q_proj": (70, 33), "k_proj": (192, 33), "down_proj": (5, 128)}
"""(out, in): none of them fits the kernel's blocks."""
MIXTURES = [
    (["a"], 1),
    (["a", "b", "c"], 3),
    ([None, "c", "a", None, "a", "b", "a"], 7),
    (["b", None, None, "b"], 4),
    (["a", "b", "a", "a", "a", "a", "b", "b", None, "a", "a"], 11),
    (["c", *["a", "b"] * 10, None, *["a"] * 60], 82),
]

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler"
)


def adapter(layout: Layout, seed: int, dtype: torch.dtype, scale: float) -> Weights:
    draw = torch.Generator().manual_seed(seed)
    flat = torch.randn(layout.size, generator=draw).to(dtype)
    ranks = dict.fromkeys(layout.shapes, layout.rank)
    return Weights(layout, flat, ranks, {} if scale == 1 else {"k_proj": scale})


@pytest.fixture(params=["own", "any"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This one with its instructions for bf16, where it has them, and one without."""
    if request.param == "any":
        monkeypatch.setattr(kernel, "cpu_flags", frozenset[str])
    for load in (kernel.load, kernel.load_for_prompts):
        load.cache_clear()
    yield
    for load in (kernel.load, kernel.load_for_prompts):
        load.cache_clear()


def loaded(dtype: torch.dtype, stored: torch.dtype | None = None) -> Kernel:
    found = kernel.load(dtype, stored or dtype)
    assert found is not None
    return found


@needs_compiler
@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.bfloat16),
    ],
)
@pytest.mark.parametrize(("keys", "batch"), MIXTURES)
def test_each_row_gets_what_torch_gives_it(
    keys: list[str | None], batch: int, dtype: torch.dtype, stored: torch.dtype
) -> None:
    compare(loaded(dtype, stored), keys, batch, dtype, stored, rank=8, tokens=1)


@needs_compiler
@pytest.mark.parametrize("tokens", [2, 5, 23, 100])
@pytest.mark.parametrize("rank", [8, 16, 64])
@pytest.mark.parametrize(("keys", "batch"), MIXTURES)
def test_each_token_of_a_prompt_gets_what_torch_gives_it(
    keys: list[str | None], batch: int, rank: int, tokens: int, dots: Kernel
) -> None:
    compare(dots, keys, batch, torch.bfloat16, torch.bfloat16, rank=rank, tokens=tokens)


@needs_compiler
@pytest.mark.parametrize("width", [64, 576, 1024, 1536, 2500])
@pytest.mark.parametrize("tokens", [2, 37, 300])
def test_a_prompts_numbers_are_those_of_torchs_linear_layers(
    tokens: int, width: int, dots: Kernel
) -> None:
    """Which PEFT has: in the same order, so that not one is rounded otherwise."""
    layout = Layouts({"o_proj": (96, width)}).of(("o_proj",), 32)
    held = {"a": adapter(layout, 1, torch.bfloat16, 1)}
    stack = Stack(layout, torch.bfloat16, CPU)
    stack.hold(held)
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(1, tokens, width, generator=draw).bfloat16()
    found = torch.randn(1, tokens, 96, generator=draw).bfloat16()
    flat = held["a"].flat
    a, b = (
        first(flat, "o_proj", 32) for first in (layout.first_rows_of_a, layout.first_rows_of_b)
    )
    linear = torch.nn.functional.linear
    wanted = found + linear(linear(x, a), b.t().contiguous())
    Compiled(dots, stack, {"a": [0]}, held, [tokens]).add("o_proj", x, found)
    assert torch.equal(found, wanted)


@needs_compiler
def test_a_prompts_numbers_do_not_depend_on_threads(dots: Kernel) -> None:
    keys, batch = MIXTURES[2]
    threads = torch.get_num_threads()
    found: list[list[Tensor]] = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(compare(dots, keys, batch, *[torch.bfloat16] * 2, rank=16, tokens=150))
    finally:
        torch.set_num_threads(threads)
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


@pytest.fixture
def dots() -> Kernel:
    """The kernel for prompts, on processors that have one."""
    found = kernel.load_for_prompts(torch.bfloat16, torch.bfloat16)
    if found is None:
        pytest.skip("torch's products are for prompts here")
    return found


def compare(
    own: Kernel,
    keys: Sequence[str | None],
    batch: int,
    dtype: torch.dtype,
    stored: torch.dtype,
    *,
    rank: int,
    tokens: int,
) -> list[Tensor]:
    """Outputs by the kernel, layer by layer, once they are what torch's products give."""
    layout = Layouts(SHAPES).of(tuple(SHAPES), rank)
    made = {
        "a": adapter(layout, 1, stored, 1),
        "b": adapter(layout, 2, stored, 0.7),
        "c": adapter(layout, 3, stored, 1),
    }
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        if key is not None:
            rows.setdefault(key, []).append(row)
    stack = Stack(layout, dtype, CPU, stored=stored)
    stack.hold({"c": made["c"]})  # whoever comes later stands in another order
    held = {key: made[key] for key in rows}
    stack.hold_together(held)
    compiled = Compiled(own, stack, rows, held, None if tokens == 1 else [tokens] * batch)
    batched = Batched(stack, rows, held, batch)
    draw = torch.Generator().manual_seed(9)
    inputs = {
        width: torch.randn(batch, tokens, width, generator=draw).to(dtype)
        for _, width in SHAPES.values()
    }
    rtol, atol = (2**-6, 2**-4) if dtype is torch.bfloat16 else (1e-5, 1e-5)
    outputs: list[Tensor] = []
    for layer, (out_features, width) in SHAPES.items():
        base = torch.randn(batch, tokens, out_features, generator=draw)
        found, wanted = base.to(dtype), base.to(dtype)
        compiled.add(layer, inputs[width], found)
        batched.add(layer, inputs[width], wanted)
        torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol)
        alone = [row for row, key in enumerate(keys) if key is None]
        assert torch.equal(found[alone], base.to(dtype)[alone])
        outputs.append(found)
    return outputs


@needs_compiler
@pytest.mark.usefixtures("processor")
def test_bf16_is_rounded_as_torch_rounds() -> None:
    """Halves, numbers that overflow, and those that are none."""
    layout = Layouts({"o_proj": (4, 2)}).of(("o_proj",), 8)
    flat = torch.zeros(layout.size)
    layout.first_rows_of_a(flat, "o_proj", 1)[:] = torch.tensor([[1.0, 1.0]])
    layout.first_rows_of_b(flat, "o_proj", 1)[:] = torch.tensor([[1.0, 3e38, -1.0, 0.0]])
    stack = Stack(layout, torch.bfloat16, CPU)
    held = {"a": Weights(layout, flat.bfloat16(), {"o_proj": 1}, {})}
    stack.hold_together(held)
    for pair in ([1.0, 2**-8], [1.0, 3 * 2**-8], [3e38, 3e38], [float("nan"), 0.0], [-0.0, -0.0]):
        x, out = torch.tensor([[pair]]).bfloat16(), torch.ones(1, 1, 4).bfloat16()
        Compiled(loaded(torch.bfloat16), stack, {"a": [0]}, held).add("o_proj", x, out)
        assert same(out[0, 0], wanted(x[0, 0], flat, layout)), pair


def wanted(x: Tensor, flat: Tensor, layout: Layout) -> Tensor:
    product = layout.first_rows_of_a(flat, "o_proj", 1).bfloat16() @ x
    return 1 + product * layout.first_rows_of_b(flat, "o_proj", 1)[0].bfloat16()


def same(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found.float(), expected.float(), rtol=0, atol=0, equal_nan=True)


def test_other_number_formats_have_none() -> None:
    assert kernel.load(torch.float16, torch.float16) is None
    assert kernel.load(torch.bfloat16, torch.float32) is None
