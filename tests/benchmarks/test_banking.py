from benchmarks.bars.banking import compared
from benchmarks.bars.bar import Verdict


def test_a_difference_is_judged_by_its_size_and_by_its_interval():
    even, upper = compared("against", [1.0, 0.0] * 50, [1.0, 0.0] * 50, "100 questions")
    assert (even.verdict, upper.verdict) == (Verdict.OK, Verdict.OK)
    assert even.detail == "points; paired bootstrap; 100 questions"
    assert even.spread == "0.00..0.00"
    worse, upper = compared("against", [0.0] * 100, [1.0] * 40 + [0.0] * 60, "")
    assert (worse.verdict, upper.verdict) == (Verdict.SHORT, Verdict.SHORT)
    assert not worse.near


def test_a_difference_that_noise_may_have_decided_is_near():
    ours, theirs = [1.0] * 48 + [0.0] * 52, [0.0] * 2 + [1.0] * 48 + [0.0] * 46 + [1.0] * 4
    short, upper = compared("against", ours, theirs, "")
    assert (short.verdict, upper.verdict) == (Verdict.SHORT, Verdict.OK)
    assert short.near
