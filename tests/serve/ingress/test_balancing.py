"""Which of several replicas a request goes to."""

from dataclasses import replace

from raylora.serve.ingress.balancing import Candidate, choose

ONE = Candidate("a", open=0, limit=20, batch=4, names=frozenset({"base", "home"}))
TWO = Candidate("b", open=0, limit=20, batch=4, names=frozenset({"base", "sums"}))


def chosen(*candidates: Candidate, model: str = "home") -> str | None:
    found = choose(candidates, model)
    return None if found is None else found.id


def test_a_holder_is_preferred_until_it_is_a_batch_behind():
    assert chosen(ONE, TWO) == "a"
    assert chosen(replace(ONE, open=3), TWO) == "a"
    assert chosen(replace(ONE, open=4), TWO) == "b"
    assert chosen(replace(ONE, open=9), replace(TWO, open=6)) == "a"


def test_what_all_hold_goes_to_the_least_busy():
    assert chosen(replace(ONE, open=2), replace(TWO, open=1), model="base") == "b"


def test_what_nobody_holds_settles_on_one_replica_and_spreads_over_all():
    models = [f"m{i}" for i in range(40)]
    first = [chosen(ONE, TWO, model=model) for model in models]
    assert first == [chosen(TWO, ONE, model=model) for model in models]
    assert 10 < first.count("a") < 30


def test_full_and_draining_replicas_get_nothing():
    assert chosen(replace(ONE, open=20), TWO) == "b"
    assert chosen(replace(ONE, draining=True), TWO) == "b"
    assert chosen(replace(ONE, draining=True), replace(TWO, open=20)) is None
