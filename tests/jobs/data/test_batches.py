from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raylora.config.training_spec import TrainingSpec
from raylora.jobs.data.batches import Batches, collate, deal
from raylora.jobs.data.encode import IGNORED, Example


def example(length: int, answer: int = 1, token: int = 7) -> Example:
    labels = [IGNORED] * (length - answer) + [token] * answer
    return Example([token] * length, labels)


def examples(count: int) -> list[Example]:
    """Row i is made of token i + 1, so that it can be recognised."""
    return [example(3 + i * 7 % 11, 1 + i % 3, token=i + 1) for i in range(count)]


def plan(**fields) -> TrainingSpec:
    return TrainingSpec.model_validate({"global_batch_size": 8, "micro_batch_size": 2, **fields})


def rows_of(micro_batches) -> list[int]:
    """Which examples are in there, by their first token."""
    return [int(token) - 1 for batch in micro_batches for token in batch["input_ids"][:, 0]]


def test_an_epoch_takes_every_row_once_in_an_order_of_its_own():
    batches = Batches(examples(40), plan(), 0, 1)
    epochs = [[r for i in range(5) for r in rows_of(batches.step(e * 5 + i))] for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(40))] * 2
    assert epochs[0] != epochs[1]
    assert epochs[0] != list(range(40))


def test_a_step_depends_on_seed_and_step_alone():
    first = Batches(examples(40), plan(), 0, 1)
    for step in (7, 0, 3):
        first.step(step)
    assert rows_of(first.step(4)) == rows_of(Batches(examples(40), plan(), 0, 1).step(4))
    assert rows_of(first.step(4)) != rows_of(Batches(examples(40), plan(seed=1), 0, 1).step(4))


def test_the_random_state_outside_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Batches(examples(40), plan(), 0, 1).step(0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_share_the_rows_of_one(workers):
    alone = Batches(examples(21), plan(), 0, 1)
    team = [Batches(examples(21), plan(), rank, workers) for rank in range(workers)]
    for step in range(6):
        parts = [rows_of(member.step(step)) for member in team]
        assert [len(part) for part in parts] == [8 // workers] * workers
        assert Counter(sum(parts, [])) == Counter(rows_of(alone.step(step)))
        assert {m.supervised_tokens(step) for m in team} == {alone.supervised_tokens(step)}


def test_supervised_tokens_are_those_of_all_workers():
    team = [Batches(examples(40), plan(), rank, 2) for rank in range(2)]
    labels = [batch["labels"][:, 1:] for member in team for batch in member.step(3)]
    assert team[0].supervised_tokens(3) == sum(int((x != IGNORED).sum()) for x in labels)


def test_no_row_is_left_out_when_batches_do_not_divide_the_rows():
    batches = Batches(examples(12), plan(), 0, 1)
    stream = [row for step in range(3) for row in rows_of(batches.step(step))]
    assert Counter(stream) == Counter([*range(12), *range(12)])


def test_fewer_rows_than_a_batch_repeat():
    batches = Batches(examples(3), plan(), 0, 1)
    assert batches.total_steps == 1
    assert Counter(rows_of(batches.step(0))).most_common(1)[0][1] == 3


@pytest.mark.parametrize(
    ("fields", "steps"),
    [({}, 6), ({"epochs": 2}, 11), ({"epochs": 0.5}, 3), ({"epochs": 3, "max_steps": 5}, 5)],
)
def test_total_steps_follow_epochs_unless_max_steps_is_set(fields, steps):
    assert Batches(examples(43), plan(**fields), 0, 1).total_steps == steps


def test_micro_batches_are_padded_to_their_longest_row():
    micro = Batches(examples(40), plan(), 0, 2).step(0)
    assert len(micro) == 2
    for batch in micro:
        assert {name: tensor.dtype for name, tensor in batch.items()} == dict.fromkeys(
            ("input_ids", "attention_mask", "labels"), torch.int64
        )
        assert int(batch["attention_mask"].sum(dim=1).max()) == batch["input_ids"].shape[1]
    assert micro[0]["input_ids"].shape[1] >= micro[1]["input_ids"].shape[1]


def test_padding_is_masked_and_not_supervised():
    batch = collate([example(5, 2), example(3)])
    assert batch["input_ids"].tolist() == [[7] * 5, [7, 7, 7, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert batch["labels"].tolist() == [
        [IGNORED, IGNORED, IGNORED, 7, 7],
        [IGNORED, IGNORED, 7, IGNORED, IGNORED],
    ]


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(2, 200), min_size=4, max_size=32),
    workers=st.sampled_from([1, 2, 4]),
)
def test_shares_are_equal_in_rows_and_close_in_tokens(lengths, workers):
    lengths = lengths[: len(lengths) // workers * workers]
    shares = deal([example(length) for length in lengths], workers)
    assert {len(share) for share in shares} == {len(lengths) // workers}
    assert sorted(len(e) for share in shares for e in share) == sorted(lengths)
    loads = [sum(len(e) for e in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths)
    assert all(share == sorted(share, key=len, reverse=True) for share in shares)


def test_the_digest_tells_data_and_plans_apart():
    def digest(rows, world_size=1, **fields):
        return Batches(rows, plan(**fields), 0, world_size).digest

    same = digest(examples(8))
    assert digest(examples(8), world_size=2) == same
    assert digest(examples(8), micro_batch_size=4, learning_rate=0.1) == same
    assert digest(examples(9)) != same
    assert digest(examples(8)[::-1]) != same
    assert digest(examples(8), seed=1) != same
    assert digest(examples(8), global_batch_size=4) != same
