from benchmarks.bars.banking import compared
from benchmarks.bars.bar import Verdict


def test_a_difference_is_judged_by_its_size_and_by_its_interval():
    even, upper = compared("against", [1.0, 0.0] * 50, [1.0, 0.0] * 50, "100 questions")
    assert (even.verdict, upper.verdict) == (Verdict.OK, Verdict.OK)
    assert even.detail == "points; 100 questions"
    worse, upper = compared("against", [0.0] * 100, [1.0] * 40 + [0.0] * 60, "")
    assert (worse.verdict, upper.verdict) == (Verdict.SHORT, Verdict.SHORT)
