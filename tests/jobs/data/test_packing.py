import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raylora.jobs.data.packing import best_fit, group_by_length, one_by_one, shuffle

LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=80)


def packed(lengths, capacity=64):
    return best_fit(np.arange(len(lengths)), np.array(lengths, np.int32), capacity)


@settings(deadline=None)
@given(LENGTHS)
def test_every_row_is_in_one_pack_and_no_pack_overflows(lengths):
    packs = [packed(lengths)[i].tolist() for i in range(len(packed(lengths)))]
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in pack) <= 64 for pack in packs)


@settings(deadline=None)
@given(LENGTHS)
def test_packs_are_at_most_11_ninths_of_the_fewest_possible(lengths):
    """Johnson's bound for best-fit decreasing, against the sum of lengths as the fewest."""
    fewest = -(-sum(lengths) // 64)
    large = sum(length > 32 for length in lengths)  # no two of these share a pack
    assert len(packed(lengths)) <= 11 / 9 * max(fewest, large) + 4


def test_packing_is_linear_and_tight():
    lengths = np.random.default_rng(0).integers(8, 2048, 200_000).astype(np.int32)
    begin = time.process_time()
    units = best_fit(np.arange(len(lengths)), lengths, 2048)
    assert time.process_time() - begin < 5
    assert lengths.sum() / (2048 * len(units)) > 0.99


def test_rows_of_one_length_are_packed_in_the_order_given():
    lengths = np.full(6, 2, np.int32)
    units = best_fit(np.array([4, 1, 5, 0, 3, 2]), lengths, 4)
    assert [units[i].tolist() for i in range(3)] == [[4, 1], [5, 0], [3, 2]]


def test_shuffling_keeps_units_whole():
    units = packed([40, 30, 20, 10, 64])
    mixed = shuffle(units, np.random.default_rng(1))
    as_sets = [{frozenset(u[i].tolist()) for i in range(len(u))} for u in (units, mixed)]
    assert as_sets[0] == as_sets[1]


def test_grouping_by_length_keeps_every_unit_and_short_batches_last():
    lengths = np.random.default_rng(0).integers(1, 100, 103).astype(np.int32)
    units = group_by_length(one_by_one(np.arange(103)), lengths, 10, np.random.default_rng(2))
    order = units.rows.tolist()
    assert sorted(order) == list(range(103))
    spreads = [np.ptp(lengths[order[i : i + 10]]) for i in range(0, 100, 10)]
    assert max(spreads) < 20
    first = [lengths[order[i]] for i in range(0, 100, 10)]
    assert first != sorted(first, reverse=True)
