"""Which tokens may be drawn, and how often."""

from collections.abc import Sequence

import pytest
import torch

from raylora.engine.sampler import NUCLEUS_CANDIDATES, Sampler
from raylora.engine.sampling import Sampling


def drawn(logits: torch.Tensor, count: int = 300, **sampling) -> list[int]:
    sampler = Sampler(Sampling(max_new_tokens=1, seed=3, **sampling))
    return [sampler.choose(logits) for _ in range(count)]


def test_temperature_draws_by_probability():
    logits = torch.log(torch.tensor([0.7, 0.2, 0.1]))
    counts = torch.bincount(torch.tensor(drawn(logits, 3000, temperature=1.0)), minlength=3)
    assert torch.allclose(counts / 3000, torch.tensor([0.7, 0.2, 0.1]), atol=0.03)


def test_top_k_draws_only_the_most_likely():
    logits = torch.tensor([0.0, 3.0, 1.0, 2.9])
    assert set(drawn(logits, temperature=1.0, top_k=2)) == {1, 3}


def test_top_p_draws_the_smallest_set_that_reaches_it():
    logits = torch.log(torch.tensor([0.1, 0.5, 0.3, 0.1]))
    assert set(drawn(logits, temperature=1.0, top_p=0.7)) == {1, 2}
    assert set(drawn(logits, temperature=1.0, top_p=0.01)) == {1}


def test_top_p_looks_beyond_the_first_candidates_where_the_mass_lies_there():
    logits = torch.zeros(4 * NUCLEUS_CANDIDATES)
    assert len(set(drawn(logits, 2000, temperature=1.0, top_p=0.9))) > NUCLEUS_CANDIDATES


def test_a_top_k_beyond_the_vocabulary_changes_nothing():
    size, likely = 4 * NUCLEUS_CANDIDATES, NUCLEUS_CANDIDATES
    shares = torch.full((size,), 0.05 / (size - likely))
    shares[:likely] = 0.95 / likely
    found = [drawn(shares.log(), 500, temperature=1.0, top_p=0.93, top_k=k) for k in (0, 9999)]
    assert found[0] == found[1]
    assert max(found[0]) > 0.93 * likely


def test_a_temperature_near_zero_takes_the_best():
    logits = torch.tensor([100.0, 101.0, 99.0])
    for temperature in (1e-4, 1e-30, 1e-46):
        assert set(drawn(logits, temperature=temperature)) == {1}


def test_greedy_is_temperature_zero_or_one_candidate():
    assert Sampler(Sampling(max_new_tokens=1)).takes_best
    assert Sampler(Sampling(max_new_tokens=1, temperature=1.0, top_k=1)).takes_best
    assert not Sampler(Sampling(max_new_tokens=1, temperature=1.0)).takes_best


@pytest.mark.parametrize("top", [{}, {"top_k": 3}, {"top_p": 0.95}])
def test_min_p_draws_what_is_likely_beside_the_best(top):
    logits = torch.log(torch.tensor([0.05, 0.5, 0.3, 0.15]))
    assert set(drawn(logits, temperature=1.0, min_p=0.5, **top)) == {1, 2}


def chosen(logits: list[float], prompt: Sequence[int] = (), count: int = 4, **sampling):
    sampler = Sampler(Sampling(max_new_tokens=count, **sampling), prompt)
    assert not sampler.takes_best
    return [sampler.choose(torch.tensor(logits)) for _ in range(count)]


def test_a_presence_penalty_counts_a_token_once():
    assert chosen([3.0, 2.5, 1.0], presence_penalty=1.0) == [0, 1, 0, 0]


def test_a_frequency_penalty_counts_it_each_time():
    assert chosen([3.0, 2.5, 1.0], frequency_penalty=1.0) == [0, 1, 0, 1]


def test_penalties_do_not_count_the_prompt_save_for_repetition():
    logits = [3.0, 2.0, 1.0]
    assert chosen(logits, [0], presence_penalty=2.0)[0] == 0
    assert chosen(logits, [0], repetition_penalty=2.0)[0] == 1


def test_a_repetition_penalty_lowers_negative_logits_too():
    assert chosen([-1.0, -1.5, -9.0], repetition_penalty=2.0, count=2) == [0, 1]


def test_a_bias_is_added_to_logits():
    assert chosen([3.0, 2.0, 1.0], logit_bias=((0, -100.0), (2, 1.5)), count=2) == [2, 2]


def test_the_logits_given_stay_as_they_are():
    logits = torch.tensor([3.0, 2.0])
    Sampler(Sampling(max_new_tokens=1, logit_bias=((0, -5.0),))).choose(logits)
    assert logits.tolist() == [3.0, 2.0]
