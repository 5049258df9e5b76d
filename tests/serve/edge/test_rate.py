"""Limits of a minute, on a clock of the test's own."""

import random

import pytest

from raylora.config.key_file import ApiKey
from raylora.serve.edge.rate import Limiter
from raylora.serve.http.api_errors import ApiError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def key(**limits) -> ApiKey:
    return ApiKey(id="mine", sha256="0" * 64, **limits)


def retry_after(call) -> int | None:
    """Seconds that a refusal names; None where there is none."""
    try:
        call()
    except ApiError as error:
        return int((error.headers or {})["Retry-After"])
    return None


def test_no_minute_ever_holds_more_requests_than_the_limit(clock):
    limiter, mine = Limiter(clock=clock), key(requests_per_minute=7)
    passed: list[float] = []
    draw = random.Random(1)
    for _ in range(2000):
        clock.now += draw.expovariate(1.0)
        if retry_after(lambda: limiter.count_request(mine)) is None:
            passed.append(clock.now)
    assert len(passed) > 200
    # The eighth after each one comes a minute later at the earliest, and hardly later than that.
    gaps = [late - early for early, late in zip(passed, passed[7:], strict=False)]
    assert min(gaps) >= 60
    assert sum(gaps) / len(gaps) < 64


def test_after_the_time_named_the_request_passes_and_not_before(clock):
    limiter, mine = Limiter(clock=clock), key(requests_per_minute=2)
    limiter.count_request(mine)
    clock.now += 10.5
    limiter.count_request(mine)
    clock.now += 1
    wait = retry_after(lambda: limiter.count_request(mine))
    assert wait == 49
    clock.now += wait - 1
    assert retry_after(lambda: limiter.count_request(mine)) == 1
    clock.now += 1
    limiter.count_request(mine)


def test_what_was_reserved_and_not_used_is_free_again(clock):
    limiter, mine = Limiter(clock=clock), key(tokens_per_minute=100)
    settle = limiter.reserve(mine, 90)
    assert retry_after(lambda: limiter.reserve(mine, 20)) == 60
    settle(30)
    other = limiter.reserve(mine, 70)
    assert retry_after(lambda: limiter.reserve(mine, 1)) == 60
    clock.now += 61
    other(5)  # forgotten by then: it must not take from what comes
    limiter.reserve(mine, 100)
    assert retry_after(lambda: limiter.reserve(mine, 1)) is not None


def test_what_never_fits_says_so(clock):
    limiter, mine = Limiter(clock=clock), key(tokens_per_minute=100)
    with pytest.raises(ApiError) as refused:
        limiter.reserve(mine, 101)
    assert refused.value.headers == {"x-should-retry": "false"}


def test_keys_do_not_share(clock):
    limiter = Limiter(clock=clock)
    mine, other = key(requests_per_minute=2), ApiKey(id="other", sha256="0" * 64)
    for _ in range(2):
        limiter.count_request(mine)
    assert retry_after(lambda: limiter.count_request(mine)) == 60
    for _ in range(100):
        limiter.count_request(other)
