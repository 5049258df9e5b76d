import math
import random

import pytest

from raylora.tracking.bootstrap import bootstrap, paired_bootstrap


def test_the_interval_of_a_share_is_that_of_the_binomial() -> None:
    found = bootstrap([1.0] * 300 + [0.0] * 100)
    spread = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert (found.rows, found.mean) == (400, 0.75)
    assert found.low == pytest.approx(0.75 - spread, abs=0.004)
    assert found.high == pytest.approx(0.75 + spread, abs=0.004)


def test_the_interval_of_many_kinds_of_rows_is_that_of_the_normal() -> None:
    draw = random.Random(0)
    values = [draw.gauss(2.0, 3.0) for _ in range(1000)]
    mean = sum(values) / 1000
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / 1000 / 1000)
    found = bootstrap(values, resamples=4000)
    assert found.mean == pytest.approx(mean)
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.02)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.02)


def test_a_pair_is_drawn_together() -> None:
    """Rows that are hard for both say nothing about the difference."""
    hard = [float(i % 2) for i in range(200)]
    assert paired_bootstrap(hard, hard) == paired_bootstrap([0.0] * 200, [0.0] * 200)
    better = [1.0] * 10 + hard[10:]
    found = paired_bootstrap(better, hard)
    assert found.mean == pytest.approx(5 / 200)
    assert 0 < found.low < found.mean < found.high < 0.06
    mirrored = paired_bootstrap(hard, better)
    assert (mirrored.mean, mirrored.low) == pytest.approx((-found.mean, -found.high), abs=0.006)


def test_rows_may_weigh_differently() -> None:
    assert bootstrap([1.0, 4.0], [3.0, 1.0]).mean == pytest.approx(7 / 4)
    same = bootstrap([0.0, 1.0, 1.0, 0.0], [2.0] * 4)
    assert same == bootstrap([0.0, 1.0, 1.0, 0.0])


def test_the_same_rows_give_the_same_interval() -> None:
    assert bootstrap([0.0, 1.0, 1.0]) == bootstrap([1.0, 0.0, 1.0])
    one = bootstrap([0.5])
    assert (one.mean, one.low, one.high) == (0.5, 0.5, 0.5)


def test_no_rows_and_rows_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="no row"):
        bootstrap([])
    with pytest.raises(ValueError):
        paired_bootstrap([1.0], [])
