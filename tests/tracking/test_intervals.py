import random
from statistics import fmean

import pytest

from raylora.tracking.intervals import paired_interval


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    dice = random.Random(1)
    truth = 0.1
    covered = 0
    for _ in range(100):
        drawn = [dice.gauss(truth, 0.5) for _ in range(60)]
        interval = paired_interval(drawn, 0.9)
        assert interval.low < interval.mean < interval.high
        assert interval.mean == pytest.approx(fmean(drawn))
        covered += interval.low <= truth <= interval.high
    assert 80 <= covered <= 98


def test_is_as_wide_as_theory_has_it() -> None:
    differences = [1.0] * 30 + [0.0] * 50 + [-1.0] * 20
    interval = paired_interval(differences, 0.95)
    deviation = (fmean(d * d for d in differences) - fmean(differences) ** 2) ** 0.5
    wide = 2 * 1.96 * deviation / len(differences) ** 0.5
    assert interval.high - interval.low == pytest.approx(wide, rel=0.1)


def test_rows_that_all_agree_leave_no_doubt() -> None:
    interval = paired_interval([-1.0] * 5, 0.95)
    assert (interval.low, interval.mean, interval.high) == (-1, -1, -1)


def test_the_same_rows_give_the_same_bounds() -> None:
    assert paired_interval([0.0, 1.0, -1.0], 0.9) == paired_interval([1.0, -1.0, 0.0], 0.9)
