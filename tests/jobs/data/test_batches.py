from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raylora.config.data_spec import DataSpec
from raylora.config.training_spec import TrainingSpec
from raylora.jobs.data.batches import Batches, deal, join
from raylora.jobs.data.examples import IGNORED, Example, ListedExamples


def example(length: int, answer: int = 1, token: int = 7, weight: float | None = None) -> Example:
    labels = [IGNORED] * (length - answer) + [token] * answer
    return Example([token] * length, labels, None if weight is None else [weight] * length)


def examples(count: int) -> list[Example]:
    """Row i is made of token i + 1, so that it can be recognised."""
    return [example(3 + i * 7 % 11, 1 + i % 3, token=i + 1) for i in range(count)]


def batches(rows, rank=0, world_size=1, data=None, **training) -> Batches:
    plan = {"global_batch_size": 8, **training}
    return Batches(
        ListedExamples(rows),
        DataSpec.model_validate(data or {}),
        TrainingSpec.model_validate(plan),
        rank,
        world_size,
    )


def rows_of(micro_batches) -> list[int]:
    """Which examples are in there, by their first token."""
    return [
        int(token) - 1 for batch in micro_batches for token in batch["input_ids"][0, starts(batch)]
    ]


def starts(batch) -> torch.Tensor:
    return batch["lengths"].cumsum(0) - batch["lengths"]


def test_an_epoch_takes_every_row_once_in_an_order_of_its_own():
    plan = batches(examples(40))
    epochs = [[r for i in range(5) for r in rows_of(plan.step(e * 5 + i, 2))] for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(40))] * 2
    assert epochs[0] != epochs[1]
    assert epochs[0] != list(range(40))


def test_a_step_depends_on_seed_and_step_alone():
    first = batches(examples(40))
    for step in (7, 0, 3):
        first.step(step, 2)
    assert rows_of(first.step(4, 2)) == rows_of(batches(examples(40)).step(4, 2))
    assert rows_of(first.step(4, 2)) != rows_of(batches(examples(40), seed=1).step(4, 2))


def test_the_random_state_outside_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(examples(40)).step(0, 2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_workers_share_the_rows_of_one(workers):
    alone = batches(examples(21))
    team = [batches(examples(21), rank, workers) for rank in range(workers)]
    for step in range(6):
        parts = [rows_of(member.step(step, 2)) for member in team]
        assert {len(part) for part in parts} <= {8 // workers, -(-8 // workers)}
        assert Counter(sum(parts, [])) == Counter(rows_of(alone.step(step, 2)))
        assert {m.supervised_weight(step) for m in team} == {alone.supervised_weight(step)}


def test_the_weight_of_a_step_is_that_of_all_workers():
    rows = [*examples(30), *(example(6, 2, token=31 + i, weight=0.5) for i in range(10))]
    team = [batches(rows, rank, 2) for rank in range(2)]
    for step in range(5):
        total = 0.0
        for batch in (b for member in team for b in member.step(step, 3)):
            weights = batch.get("weights", torch.ones(batch["labels"].shape))
            total += float(weights[batch["labels"] != IGNORED].sum())
        assert team[0].supervised_weight(step) == pytest.approx(total)


def test_no_row_is_left_out_when_batches_do_not_divide_the_rows():
    plan = batches(examples(12))
    stream = [row for step in range(3) for row in rows_of(plan.step(step, 8))]
    assert Counter(stream) == Counter([*range(12), *range(12)])


def test_fewer_rows_than_a_batch_repeat():
    plan = batches(examples(3))
    assert plan.total_steps == 1
    assert Counter(rows_of(plan.step(0, 2))).most_common(1)[0][1] == 3


@pytest.mark.parametrize(
    ("fields", "steps"),
    [({}, 6), ({"epochs": 2}, 11), ({"epochs": 0.5}, 3), ({"epochs": 3, "max_steps": 5}, 5)],
)
def test_total_steps_follow_epochs_unless_max_steps_is_set(fields, steps):
    assert batches(examples(43), **fields).total_steps == steps


def test_documents_are_joined_without_padding_and_positions_restart():
    batch = join([example(5, 2), example(3)])
    assert batch["input_ids"].tolist() == [[7] * 8]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]
    assert batch["labels"].tolist() == [[*[IGNORED] * 3, 7, 7, IGNORED, IGNORED, 7]]
    assert batch["lengths"].tolist() == [5, 3]
    assert "weights" not in batch


def test_weights_of_one_row_give_the_others_weight_one():
    batch = join([example(3), example(2, weight=0.25)])
    assert batch["weights"].tolist() == [[1, 1, 1, 0.25, 0.25]]


@pytest.mark.parametrize("most", [1, 3, 5, 100])
def test_micro_batches_hold_at_most_so_many_rows_and_like_numbers_of_tokens(most):
    parts = batches(examples(40), rank=1, world_size=2, global_batch_size=20).step(1, most)
    assert len(parts) == -(-10 // most)
    assert max(len(part["lengths"]) for part in parts) <= most
    tokens = [int(part["lengths"].sum()) for part in parts]
    assert max(tokens) - min(tokens) <= 13  # the longest row


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(2, 200), min_size=1, max_size=32),
    hands=st.integers(1, 6),
)
def test_shares_are_close_in_rows_and_in_tokens(lengths, hands):
    shares = deal(list(range(len(lengths))), lengths, hands)
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sorted(row for share in shares for row in share) == list(range(len(lengths)))
    tokens = [sum(lengths[row] for row in share) for share in shares]
    assert max(tokens) - min(tokens) <= max(lengths) * 2


PACKED = {"packing": "best_fit", "max_length": 16, "pack_length": 30}


def test_a_packed_epoch_takes_every_row_once_and_differs_from_the_next():
    plan = batches(examples(60), data=PACKED, global_batch_size=1)
    steps = plan.total_steps
    seen = [[rows_of(plan.step(s, 1)) for s in range(e * steps, (e + 1) * steps)] for e in (0, 1)]
    assert [sorted(sum(epoch, [])) for epoch in seen] == [list(range(60))] * 2
    assert {frozenset(pack) for pack in seen[0]} != {frozenset(pack) for pack in seen[1]}


def test_packs_are_dealt_whole_and_are_nearly_full():
    plan = batches(examples(60), data=PACKED, global_batch_size=4)
    sizes = [int(b["lengths"].sum()) for s in range(plan.total_steps - 1) for b in plan.step(s, 1)]
    assert max(sizes) <= 30
    assert sum(sizes) / len(sizes) > 0.9 * 30


def test_length_grouped_batches_hold_rows_of_like_length():
    spread = {}
    for order in ("shuffled", "length_grouped"):
        plan = batches(examples(88), data={"order": order})
        steps = [plan.step(step, 8)[0]["lengths"] for step in range(11)]
        spread[order] = sum(int(x.max() - x.min()) for x in steps) / 11
        assert sorted(r for s in range(11) for r in rows_of(plan.step(s, 8))) == list(range(88))
    assert spread["length_grouped"] < spread["shuffled"] / 3


def test_the_digest_tells_data_and_plans_apart():
    def digest(rows, world_size=1, data=None, **fields):
        return batches(rows, 0, world_size, data, **fields).digest

    same = digest(examples(8))
    assert digest(examples(8), world_size=2) == same
    assert digest(examples(8), micro_batch_size=4, learning_rate=0.1) == same
    assert digest(examples(9)) != same
    assert digest(examples(8)[::-1]) != same
    assert digest(examples(8), seed=1) != same
    assert digest(examples(8), global_batch_size=4) != same
    assert digest(examples(8), data={"packing": "best_fit"}) != same
    assert digest(examples(8), data={"order": "length_grouped"}) != same
