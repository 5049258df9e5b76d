"""Whose turn it is, over random arrivals."""

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from raylora.engine.fair_queue import FairQueue


@dataclass(frozen=True)
class Job:
    id: str
    adapter: str | None = None
    most_tokens: int = 100


def queue(*jobs: Job) -> FairQueue[Job]:
    made = FairQueue[Job]()
    for job in jobs:
        made.add(job)
    return made


def flood(adapter: str | None, count: int, tokens: int = 100) -> list[Job]:
    return [Job(f"{adapter}-{i}", adapter, tokens) for i in range(count)]


def drained(waiting: FairQueue[Job]) -> list[Job]:
    return [waiting.take() for _ in range(len(waiting))]


def test_one_adapter_is_first_come_first_served() -> None:
    jobs = flood("a", 5)
    assert drained(queue(*jobs)) == jobs


def test_a_flood_does_not_keep_a_latecomer_waiting() -> None:
    waiting = queue(*flood("a", 1000))
    for _ in range(16):
        waiting.take()
    waiting.add(Job("late", "b"))
    waiting.add(Job("base", None))
    assert {waiting.take().id, waiting.take().id} == {"late", "base"}


def test_an_adapter_that_was_away_gets_no_credit_for_it() -> None:
    waiting = queue(*flood("a", 100))
    for _ in range(50):
        waiting.take()
    for job in flood("b", 10):
        waiting.add(job)
    assert Counter(waiting.take().adapter for _ in range(10)) == {"a": 5, "b": 5}


def test_long_requests_take_fewer_turns() -> None:
    waiting = queue(*flood("long", 20, 400), *flood("short", 80, 100))
    assert Counter(waiting.take().adapter for _ in range(50)) == {"long": 10, "short": 40}


Jobs = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(1, 50)), min_size=1, max_size=60
)


@given(Jobs, st.data())
def test_backlogged_adapters_never_drift_apart_by_more_than_a_request_each(pairs, data) -> None:
    jobs = [Job(f"r{i}", adapter, tokens) for i, (adapter, tokens) in enumerate(pairs)]
    waiting = queue(*jobs)
    if gone := data.draw(st.lists(st.sampled_from(jobs), unique=True, max_size=5)):
        assert [waiting.remove(job.id) for job in gone] == gone
        assert waiting.remove(gone[0].id) is None
    left = [job for job in jobs if job not in gone]
    largest = max((job.most_tokens for job in left), default=0)
    had = Counter({job.adapter: 0 for job in left})
    while len(waiting):
        first = waiting.first()
        job = waiting.take()
        assert job == first
        left.remove(job)
        had[job.adapter] += job.most_tokens
        backlogged = [had[adapter] for adapter in {job.adapter for job in left}]
        if backlogged:
            assert max(backlogged) - min(backlogged) <= 2 * largest
    assert left == []
    assert waiting.first() is None
