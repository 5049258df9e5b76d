import math

import pytest

from raylora.config.training_spec import OnSpike, TrainingSpec
from raylora.errors import JobFailed
from raylora.jobs.train.watchdog import watch

CALM = [1.0, 1.1, 0.9] * 10


def test_nothing_is_said_of_usual_losses_or_where_nobody_asked():
    assert watch(31, 1.9, CALM, TrainingSpec(spike_factor=2)) == []
    assert watch(31, 99.0, CALM, TrainingSpec()) == []


def test_a_spike_is_told_with_its_step_and_size():
    (warning,) = watch(31, 3.0, CALM, TrainingSpec(spike_factor=2))
    assert "3 at step 31, 3.0 times the median of the last 30" in warning


def test_the_first_steps_have_no_spikes():
    assert watch(10, 50.0, CALM[:9], TrainingSpec(spike_factor=2)) == []


def test_a_spike_stops_the_run_where_the_spec_says_so():
    training = TrainingSpec(spike_factor=2, on_spike=OnSpike.STOP)
    with pytest.raises(JobFailed, match="at step 31") as caught:
        watch(31, 3.0, CALM, training)
    assert "on_spike=warn" in str(caught.value.hint)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_no_number_always_stops(loss):
    with pytest.raises(JobFailed, match=f"the loss is {loss} at step 7"):
        watch(7, loss, [], TrainingSpec())
