import pytest

from raylora.cluster.job_info import JobInfo, JobState


@pytest.mark.parametrize(
    ("state", "driver", "expected"),
    [
        (JobState.SUCCEEDED, 0, 0),
        (JobState.RUNNING, None, 0),
        (JobState.FAILED, 1, 1),
        (JobState.FAILED, 6, 6),
        (JobState.FAILED, 5, 5),
        (JobState.FAILED, 137, 1),
        (JobState.FAILED, None, 1),
        (JobState.STOPPED, 130, 1),
    ],
)
def test_a_follower_exits_with_what_the_driver_found_at_fault(state, driver, expected) -> None:
    assert JobInfo("x", state, driver_exit_code=driver).exit_code == expected
