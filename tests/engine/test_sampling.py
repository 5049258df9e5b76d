"""Which tokens may be drawn, and how often."""

import torch

from raylora.engine.sampling import NUCLEUS_CANDIDATES, Sampler, Sampling


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


def test_a_temperature_near_zero_takes_the_best():
    logits = torch.tensor([100.0, 101.0, 99.0])
    assert set(drawn(logits, temperature=1e-30)) == {1}


def test_greedy_is_temperature_zero_or_one_candidate():
    assert Sampler(Sampling(max_new_tokens=1)).is_greedy
    assert Sampler(Sampling(max_new_tokens=1, temperature=1.0, top_k=1)).is_greedy
    assert not Sampler(Sampling(max_new_tokens=1, temperature=1.0)).is_greedy
