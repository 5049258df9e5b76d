"""What the products of a step fetch: what is read after them, as late as it can be."""

import os
import shutil

import pytest
import torch
from torch import nn

from raylora.engine.step.ahead import Product, calls_of
from raylora.engine.step.few_rows import use_few_rows
from raylora.lora.devices import cpu_flags
from raylora.lora.native import Call, Reads, Slots

pytestmark = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None or "avx2" not in cpu_flags(),
    reason="needs AVX2 and a C compiler",
)

ROWS = 16
WIDTH = 64
NUMBERS, COUNT = torch.tensor([2, 0]), torch.tensor([2])
SLOTS = Slots(NUMBERS.data_ptr(), COUNT.data_ptr(), 2)


def product(outputs: int, *, rows: int = ROWS, ours: bool = True) -> Product:
    """Of each of two slots it fetches 256 bytes at a time, half as often as it has outputs."""
    layer = nn.Linear(WIDTH, outputs, bias=False).requires_grad_(False)
    if ours:
        assert use_few_rows(layer) == 1
    return Product(layer, torch.randn(rows, WIDTH), torch.empty(rows, outputs), rows)


def reading(*each: Reads) -> Call:
    return Call(sorted, ((),), None, each)


def reads(stack: int, size: int) -> Reads:
    return Reads(stack, SLOTS, 1 << 20, size)


def fetched(call: Call) -> list[tuple[int, int]]:
    """(address, bytes of each slot), in their order."""
    return [(soon.stack, soon.size) for soon in call.args[-2]]


def test_each_product_fetches_what_is_read_right_after_it() -> None:
    first, second = reads(1000, 700), reads(90_000, 5)
    work = [product(64), reading(first), product(64), reading(second)]
    calls = calls_of(work)
    assert [fetched(calls[0]), fetched(calls[2])] == [[(1000, 700)], [(90_000, 5)]]
    assert calls[1] is work[1] and calls[3] is work[3]


def test_what_has_no_room_is_fetched_by_the_product_before_and_the_rest_not_at_all() -> None:
    """A product of 16 outputs fetches 8 times."""
    a, b = reads(10_000, 3000), reads(50_000, 1500)
    calls = calls_of([product(16), product(16), reading(a, b)])
    assert fetched(calls[1]) == [(10_000 + 2488, 512), (50_000, 1500)]
    assert fetched(calls[0]) == [(10_000 + 440, 2048)]


def test_few_rows_and_the_products_of_torch_fetch_nothing() -> None:
    products = [product(16), product(16, rows=3), product(16, ours=False), product(16, rows=65)]
    calls = calls_of([*products, reading(reads(10_000, 300))])
    assert fetched(calls[0]) == [(10_000, 300)]
    assert fetched(calls[1]) == []
    with torch.inference_mode():
        for call, (layer, x, out, _) in zip(calls, products, strict=False):
            if layer is not products[0].layer:  # it would fetch from where nothing is
                call.function(*call.args)
                torch.testing.assert_close(out, type(layer).forward(layer, x))
