"""Who is taken in at a step, and in which groups."""

from dataclasses import dataclass

from raylora.engine.cache_budget import COLUMN_BLOCK, CacheBudget
from raylora.engine.scheduler import GROUP_TOKENS, PADDING, Scheduler, grouped

UNBOUNDED = CacheBudget(None, 10)


@dataclass
class Waiting:
    id: str
    to_prefill: int
    adapter: str | None = None
    answer: int = 10

    @property
    def most_tokens(self) -> int:
        return self.to_prefill + self.answer


def rows(*lengths: int) -> list[Waiting]:
    return [Waiting(f"r{i}", length) for i, length in enumerate(lengths)]


def ids(rows: list[Waiting]) -> list[str]:
    return [row.id for row in rows]


def queue(max_batch_size: int, *lengths: int, budget: CacheBudget = UNBOUNDED) -> Scheduler:
    scheduler = Scheduler[Waiting](max_batch_size, budget)
    for row in rows(*lengths):
        scheduler.add(row)
    return scheduler


def test_the_batch_is_filled_in_order_of_arrival():
    scheduler = queue(3, 5, 5, 5, 5)
    assert ids(scheduler.admit(rows(5))) == ["r0", "r1"]
    assert scheduler.waiting == 2
    assert scheduler.admit(rows(5, 5, 5)) == []


def test_a_waiting_row_can_be_removed():
    scheduler = queue(8, 5, 6)
    assert scheduler.remove("r0") is not None
    assert scheduler.remove("r0") is None
    assert ids(scheduler.admit([])) == ["r1"]


def test_rows_wait_for_room_and_none_overtakes():
    short, long = COLUMN_BLOCK - 10, 3 * COLUMN_BLOCK
    scheduler = queue(8, short, long, short, budget=CacheBudget(COLUMN_BLOCK * 10 * 4, 10))
    first = scheduler.admit([])
    assert ids(first) == ["r0"]
    assert scheduler.admit(first) == []
    assert ids(scheduler.admit([])) == ["r1"]
    assert ids(scheduler.admit([])) == ["r2"]


def test_the_longest_row_is_one_that_fits_alone():
    for most in (0, 10, COLUMN_BLOCK * 10, COLUMN_BLOCK * 35):
        budget = CacheBudget(most, 10)
        assert budget.fits([budget.longest(1000)])
        assert not budget.fits([budget.longest(1000) + 1])
    assert UNBOUNDED.longest(1000) == 1000


def test_groups_bound_padding_and_size():
    groups = grouped(rows(10, 500, 11, 12, 490, 3000, 3000))
    assert {row.id for group in groups for row in group} == {f"r{i}" for i in range(7)}
    for group in groups:
        real = sum(row.to_prefill for row in group)
        padded = max(row.to_prefill for row in group) * len(group)
        assert padded <= PADDING * real
        assert padded <= GROUP_TOKENS
    assert len(groups) == 4
