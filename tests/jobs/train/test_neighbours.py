"""Which adapters are computed at once."""

import pytest

from raylora.jobs.train.neighbours import MOST_RANKS, MOST_TOKENS, neighbours
from raylora.jobs.train.route import Adapter


def adapters(*ranks: int, dropout: tuple[float, ...] = ()) -> list[Adapter]:
    rates = dropout or (0.0,) * len(ranks)
    return [Adapter(rank, 2.0, rate) for rank, rate in zip(ranks, rates, strict=True)]


def sizes(lengths: list[int], own: list[Adapter]) -> list[int]:
    """Of the groups, which must be all of them in order."""
    groups = neighbours(lengths, own)
    assert [i for group in groups for i in range(len(own))[group]] == list(range(len(own)))
    return [group.stop - group.start for group in groups]


@pytest.mark.parametrize(
    ("tokens", "ranks", "expected"),
    [
        (64, (4, 8, 16, 32), [4]),
        (32, (8,) * 8, [8]),
        (64, (8,) * 8, [4, 4]),  # tokens
        (32, (32,) * 4, [2, 2]),  # ranks
        (MOST_TOKENS, (4, 4), [1, 1]),
        (16, (MOST_RANKS, 4, 4), [1, 2]),
        (2 * MOST_TOKENS, (2 * MOST_RANKS,), [1]),
    ],
)
def test_short_neighbours_of_low_rank_are_together(
    tokens: int, ranks: tuple[int, ...], expected: list[int]
):
    assert sizes([tokens] * len(ranks), adapters(*ranks)) == expected


def test_those_with_another_dropout_are_apart():
    assert sizes([8] * 4, adapters(4, 4, 4, 4, dropout=(0.1, 0.1, 0.0, 0.1))) == [2, 1, 1]
