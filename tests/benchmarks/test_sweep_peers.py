import pytest
from benchmarks.sweep.peers import Tuned, TunedTrial, require


def tuned(*trials: tuple[int, float]) -> Tuned:
    return Tuned(1.0, [TunedTrial({"n": i}, *trial) for i, trial in enumerate(trials)])


def test_the_best_is_one_of_those_that_went_furthest():
    assert tuned((10, 0.1), (40, 0.9), (40, 0.8)).best.settings == {"n": 2}


def test_a_peer_that_did_less_is_no_peer():
    require(tuned((30, 0.1), (30, 0.2)), trials=2, steps=30)
    with pytest.raises(RuntimeError, match=r"\[30, 29\]"):
        require(tuned((30, 0.1), (29, 0.2)), trials=2, steps=30)
    with pytest.raises(RuntimeError):
        require(tuned((30, 0.1)), trials=2, steps=30)
