import pytest
import torch

from raylora.errors import JobFailed
from raylora.jobs.train.backoff import halved, is_out_of_memory
from raylora.jobs.train.gradients import GROWTH_STEPS, LocalGradients, LossScale


def test_gradients_add_up_in_fp32_and_leave_the_parameters_alone():
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    unused = torch.nn.Parameter(torch.ones(2))
    gradients = LocalGradients([weight, unused], weight.device)
    for factor in (256.0, 1.0):  # bf16 knows no 257
        found = torch.autograd.grad((weight.float() * 4 * factor).sum(), weight)
        gradients.add([*found, None], factor=0.25)
    assert gradients.views[0].tolist() == [257.0] * 3
    assert gradients.views[1].tolist() == [0.0] * 2
    assert weight.grad is None
    gradients.clear()
    assert not gradients.flat.any()


@pytest.mark.parametrize("second", [None, torch.full((2,), 3.0)])
def test_the_first_gradients_after_a_clear_replace_what_was_there(second):
    weights = [torch.nn.Parameter(torch.ones(size)) for size in (3, 2)]
    gradients = LocalGradients(weights, weights[0].device)
    gradients.add([torch.full((3,), 9.0), torch.full((2,), 9.0)], factor=1.0)
    gradients.clear()
    for _ in range(2):
        gradients.add([torch.full((3,), 4.0), second], factor=0.5)
    assert gradients.flat.tolist() == [4.0] * 3 + [0.0 if second is None else 3.0] * 2


def test_the_scale_halves_where_gradients_overflow_and_grows_when_they_long_have_not():
    scale = LossScale(torch.float16)
    first = scale.value
    assert scale.overflowed() and scale.value == first / 2
    for _ in range(GROWTH_STEPS):
        scale.held()
    assert scale.value == first
    other = LossScale(torch.float16)
    other.load(scale.state())
    assert other.state() == scale.state()


def test_a_scale_of_1_cannot_help():
    scale = LossScale(torch.float16)
    while scale.value > 1:
        assert scale.overflowed()
    assert not scale.overflowed()


def test_formats_with_the_range_of_fp32_are_not_scaled():
    scale = LossScale(torch.bfloat16)
    assert scale.value == 1 and not scale.overflowed()


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_memory_errors_are_told_from_others(error, short):
    assert is_out_of_memory(error) == short


def test_torchs_own_error_of_a_cpu_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_halves_go_down_to_one_row():
    assert (halved(5), halved(2)) == (2, 1)
    with pytest.raises(JobFailed):
        halved(1)
