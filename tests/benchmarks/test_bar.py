from benchmarks.bars.bar import Verdict, at_least, at_most, holds, not_measured, shown


def test_a_bar_that_noise_may_have_decided_is_near():
    assert at_least("a", [2.4, 2.2, 2.6], 2.5).near
    assert at_most("a", [1.2, 1.0, 1.3], 1.1).near
    assert not at_least("a", [2.0, 2.2, 2.4], 2.5).near
    assert not at_least("a", [2.6, 2.4, 2.7], 2.5).near


def test_a_repetition_shows_the_first_figure():
    first = at_least("a", [2.4, 2.2, 2.6], 2.5, "x")
    again = at_least("a", [2.7, 2.5, 2.8], 2.5, "x", "detail").after(first)
    assert again.verdict is Verdict.OK
    assert again.detail == "detail; repeated; first time 2.4x (2.2..2.6)"


def test_what_was_not_measured_is_not_ok():
    assert not_measured("a", "no data").verdict is Verdict.NOT_MEASURED
    assert holds("a", 0, 0, "cases").verdict is Verdict.SHORT
    assert "none" in shown("a", [1.0]).line()
