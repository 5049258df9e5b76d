"""Who joins at a step, and in which groups."""

from dataclasses import dataclass

from raylora.engine.scheduler import GROUP_TOKENS, PADDING, PREFILL_TOKENS, Scheduler, grouped


@dataclass
class Waiting:
    id: str
    prompt_length: int


def rows(*lengths: int) -> list[Waiting]:
    return [Waiting(f"r{i}", length) for i, length in enumerate(lengths)]


def ids(groups: list[list[Waiting]]) -> set[str]:
    return {row.id for group in groups for row in group}


def queue(max_batch_size: int, *lengths: int) -> Scheduler[Waiting]:
    scheduler = Scheduler[Waiting](max_batch_size)
    for row in rows(*lengths):
        scheduler.add(row)
    return scheduler


def test_the_batch_is_filled_in_order_of_arrival():
    scheduler = queue(3, 5, 5, 5, 5)
    assert ids(scheduler.admit(running=1)) == {"r0", "r1"}
    assert scheduler.waiting == 2
    assert scheduler.admit(running=3) == []


def test_long_prompts_join_one_by_one_while_others_generate():
    scheduler = queue(8, PREFILL_TOKENS, PREFILL_TOKENS)
    assert ids(scheduler.admit(running=1)) == {"r0"}
    assert ids(scheduler.admit(running=2)) == {"r1"}


def test_an_idle_engine_takes_all_prompts_at_once():
    scheduler = queue(8, PREFILL_TOKENS, PREFILL_TOKENS)
    assert ids(scheduler.admit(running=0)) == {"r0", "r1"}


def test_a_waiting_row_can_be_removed():
    scheduler = queue(8, 5, 6)
    assert scheduler.remove("r0") is not None
    assert scheduler.remove("r0") is None
    assert ids(scheduler.admit(running=0)) == {"r1"}


def test_groups_bound_padding_and_size():
    groups = grouped(rows(10, 500, 11, 12, 490, 3000, 3000))
    assert ids(groups) == {f"r{i}" for i in range(7)}
    for group in groups:
        real = sum(row.prompt_length for row in group)
        padded = max(row.prompt_length for row in group) * len(group)
        assert padded <= PADDING * real
        assert padded <= GROUP_TOKENS
    assert len(groups) == 4
