"""What the passes of a product fetch is what will be read, and no more than that."""

import ctypes
import os
import shutil
from pathlib import Path

import pytest
import torch

from raylora.engine.step import few_rows
from raylora.lora.native import library

pytestmark = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler"
)

HEADER = Path(few_rows.__file__).with_name("soon.h")
SOURCE = """
void addresses(const struct soon *each, int64_t kinds, int64_t blocks, int64_t bytes,
               int64_t passes, const char **out)
{
    for (int64_t block = 0; block < blocks; block++)
        soon_of_block(each, kinds, block, blocks, bytes, passes, out + block * passes);
}
"""

Kind = tuple[int, list[int], int, int]
"""Address of a stack, slots, bytes between slots, bytes of a slot."""

A: Kind = (10_000, [3, 0, 7, 1], 1000, 300)
B: Kind = (50_000, [3, 0, 7, 1], 2000, 250)


def addresses(
    folder: Path, kinds: list[Kind], *, blocks: int, passes: int, size: int
) -> list[int]:
    source = folder / "soon.c"
    # Its text, not its name: what is compiled is known by the text of the file.
    source.write_text(HEADER.read_text() + SOURCE)
    found = library(source, torch.float32)
    assert found is not None
    slots = [torch.tensor(own) for _, own, _, _ in kinds]
    counts = torch.tensor([len(own) for own in slots])
    facts = [
        number
        for (stack, _, stride, whole), held, count in zip(kinds, slots, counts, strict=True)
        for number in (stack, held.data_ptr(), count.data_ptr(), stride, whole)
    ]
    out = (ctypes.c_int64 * (blocks * passes))()
    number = ctypes.c_int64
    made = (number * len(facts))(*facts)
    numbers = (number(each) for each in (len(kinds), blocks, size, passes))
    found.addresses(made, *numbers, out)
    return list(out)


def pieces(kind: Kind, slot: int, size: int) -> list[int]:
    stack, _, stride, whole = kind
    return [stack + slot * stride + at for at in range(0, whole, size)]


@pytest.mark.parametrize(("blocks", "passes"), [(36, 1), (12, 3), (40, 16), (333, 4)])
def test_each_piece_once_slot_by_slot_where_there_are_passes_enough(
    tmp_path: Path, blocks: int, passes: int
) -> None:
    wanted = [at for slot in A[1] for kind in (A, B) for at in pieces(kind, slot, 64)]
    found = addresses(tmp_path, [A, B], blocks=blocks, passes=passes, size=64)
    assert [at for at in found if at] == wanted


def test_of_each_slot_the_first_where_there_are_too_few(tmp_path: Path) -> None:
    found = addresses(tmp_path, [A, B], blocks=8, passes=3, size=64)
    assert found == [at for slot in A[1] for at in [*pieces(A, slot, 64), pieces(B, slot, 64)[0]]]


def test_fewer_blocks_than_slots(tmp_path: Path) -> None:
    everything = {at for slot in A[1] for at in pieces(A, slot, 64)}
    found = addresses(tmp_path, [A], blocks=3, passes=2, size=64)
    assert len(set(found)) == 6 and set(found) <= everything


def test_nothing_is_fetched_where_nothing_is_read(tmp_path: Path) -> None:
    assert addresses(tmp_path, [], blocks=2, passes=3, size=64) == [0] * 6
