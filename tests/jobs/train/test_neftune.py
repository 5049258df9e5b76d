from typing import Any

import torch
from tests.families import FAMILIES

from raylora.jobs.train.neftune import NoNoise, noise_on

LENGTHS = torch.tensor([2, 50, 12], dtype=torch.int32)
IDS = torch.full((1, 64), 7)


def embed(model) -> torch.Tensor:
    return model.get_input_embeddings()(IDS)[0]


def test_each_document_gets_noise_by_its_own_length() -> None:
    model = FAMILIES["llama"].make_model()
    clean = embed(model)
    noise = noise_on(model, alpha=5)
    torch.manual_seed(0)
    with noise.over(LENGTHS):
        drawn = embed(model) - clean
    start = 0
    for length in LENGTHS.tolist():
        part = drawn[start : start + length]
        largest = 5 / (length * 64) ** 0.5
        assert 0.9 * largest < part.abs().max() <= largest * 1.001
        assert part.mean().abs() < 0.2 * largest
        start += length


def test_it_is_there_in_training_passes_only_and_follows_the_seed() -> None:
    model: Any = FAMILIES["gemma2"].make_model()
    model.to(torch.bfloat16)
    clean = embed(model)
    noise = noise_on(model, alpha=5)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with noise.over(LENGTHS):
            drawn.append(embed(model))
        assert torch.equal(embed(model), clean)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].dtype is torch.bfloat16


def test_alpha_0_is_no_noise() -> None:
    model = FAMILIES["llama"].make_model()
    noise = noise_on(model, alpha=0)
    assert isinstance(noise, NoNoise)
    clean = embed(model)
    with noise.over(LENGTHS):
        assert torch.equal(embed(model), clean)
