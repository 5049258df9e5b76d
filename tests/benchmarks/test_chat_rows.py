import pytest
from benchmarks.bars.chat_rows import LONGEST, SHORTEST, one_long_row, skewed_lengths


def test_skewed_lengths_reach_from_the_shortest_to_the_longest():
    lengths = skewed_lengths(96)
    assert (min(lengths), max(lengths)) == (SHORTEST, LONGEST)
    assert sorted(lengths)[48] < sum(lengths) / 96
    assert lengths == skewed_lengths(96) != skewed_lengths(96, seed=1)


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
def test_one_long_row_keeps_the_sum(ratio: int):
    lengths = one_long_row(ratio, 16, 64)
    assert (len(lengths), sum(lengths), max(lengths)) == (16, 1024, ratio * 64)
