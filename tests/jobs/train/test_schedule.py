import pytest

from raylora.config.training_spec import Schedule, TrainingSpec
from raylora.jobs.train.schedule import learning_rate


def rates(total: int = 20, **settings) -> list[float]:
    training = TrainingSpec(learning_rate=1.0, **settings)
    return [learning_rate(step, total, training) for step in range(total)]


@pytest.mark.parametrize("schedule", list(Schedule))
def test_warm_up_rises_in_equal_parts_to_the_peak(schedule):
    assert rates(warmup_ratio=0.2, lr_scheduler=schedule)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_no_step_is_wasted_on_a_rate_of_zero():
    for schedule in Schedule:
        assert min(rates(lr_scheduler=schedule, warmup_ratio=0.05)) > 0


def test_constant_stays():
    assert set(rates(warmup_ratio=0, lr_scheduler=Schedule.CONSTANT)) == {1.0}


def test_linear_falls_by_equal_parts():
    falling = rates(warmup_ratio=0, lr_scheduler=Schedule.LINEAR)
    assert falling[0] == 1.0
    assert falling[10] == pytest.approx(0.5)
    assert falling[-1] == pytest.approx(1 / 20)


def test_cosine_is_halfway_in_the_middle():
    falling = rates(warmup_ratio=0, lr_scheduler=Schedule.COSINE)
    assert falling[10] == pytest.approx(0.5)
    assert falling == sorted(falling, reverse=True)


def test_a_run_of_one_step_uses_the_peak():
    assert rates(total=1, warmup_ratio=0.5) == [1.0]


def test_wsd_stays_and_then_falls_by_equal_parts():
    flat = rates(warmup_ratio=0.1, decay_ratio=0.25, lr_scheduler=Schedule.WSD)
    assert flat[:2] == [0.5, 1.0] and set(flat[2:16]) == {1.0}
    assert flat[15:] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
