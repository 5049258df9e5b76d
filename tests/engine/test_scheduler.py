"""Who is taken in at a step, and in which groups."""

from dataclasses import dataclass

import pytest

from raylora.engine.cache_budget import COLUMN_BLOCK, CacheBudget
from raylora.engine.scheduler import GROUP_TOKENS, PADDING, Scheduler, grouped
from raylora.errors import InvalidRequest

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


def test_a_row_that_could_never_fit_is_refused_with_the_numbers():
    scheduler = queue(8, budget=CacheBudget(COLUMN_BLOCK * 10, 10))
    said = f"{COLUMN_BLOCK + 11} tokens.* needs {COLUMN_BLOCK * 20} bytes.* {COLUMN_BLOCK * 10}$"
    with pytest.raises(InvalidRequest, match=said):
        scheduler.add(Waiting("r", COLUMN_BLOCK + 1))
    assert scheduler.waiting == 0


def test_groups_bound_padding_and_size():
    groups = grouped(rows(10, 500, 11, 12, 490, 3000, 3000))
    assert {row.id for group in groups for row in group} == {f"r{i}" for i in range(7)}
    for group in groups:
        real = sum(row.to_prefill for row in group)
        padded = max(row.to_prefill for row in group) * len(group)
        assert padded <= PADDING * real
        assert padded <= GROUP_TOKENS
    assert len(groups) == 4
