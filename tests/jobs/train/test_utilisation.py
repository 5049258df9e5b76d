import pytest
import torch

from raylora.jobs.train.utilisation import Work, cost_of, matrix_peak


def test_operations_are_counted_by_what_they_are_done_on(tiny):
    model = tiny.with_lora(tiny.llama())
    cost = cost_of(model.get_base_model())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # 2 layers: q and o 32 x 32, k and v 32 x 16, three of 32 x 64.
    frozen = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
    assert cost.per_token == 4 * frozen + 6 * trained
    assert cost.per_supervised == 4 * tiny.VOCABULARY * 32
    # Two products of length x length x 32, half of them masked; three times for both passes.
    assert cost.per_square == 2 * (2 * 2 * 32 / 2) * 3
    work = Work(tokens=10, supervised=4, squares=58) + Work(1, 1, 1)
    assert cost.of(work) == pytest.approx(
        11 * cost.per_token + 5 * cost.per_supervised + 59 * cost.per_square
    )


def test_the_peak_is_measured_and_draws_from_no_stream():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    assert matrix_peak(torch.device("cpu"), torch.float32) > 1e8
    assert torch.equal(torch.random.get_rng_state(), before)
