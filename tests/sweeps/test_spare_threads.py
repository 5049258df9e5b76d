"""Who computes with how many threads."""

from raylora.sweeps.spare_threads import Place, threads_of

ONE, TWO = Place("node", 1), Place("node", 2)


def test_slots_with_trials_have_their_own():
    places, trials = {"a": ONE, "b": TWO}, {"a": 3, "b": 1}
    assert threads_of("a", places, trials) == 1
    assert threads_of("b", places, trials) == 2


def test_one_without_trials_lends_all_it_has():
    assert threads_of("a", {"a": ONE, "b": TWO}, {"a": 1, "b": 0}) == 3


def test_what_is_lent_is_shared_and_never_more_than_there_is():
    places = {"a": ONE, "b": ONE, "c": Place("node", 3)}
    trials = {"a": 1, "b": 2, "c": 0}
    assert [threads_of(name, places, trials) for name in ("a", "b")] == [2, 2]


def test_nothing_is_lent_across_nodes():
    places = {"a": ONE, "b": Place("other", 4)}
    assert threads_of("a", places, {"a": 1, "b": 0}) == 1
