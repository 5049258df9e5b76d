"""Examples in memory and mixed: weights, orders, digests."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylora.jobs.data.examples import IGNORED, Example, ListedExamples
from raylora.jobs.data.mixture import MixedExamples


def listed(rows: int, first: int = 0) -> ListedExamples:
    return ListedExamples([Example([first + i, 7, 8], [IGNORED, 7, 8]) for i in range(rows)])


def test_an_example_counts_what_is_supervised():
    plain = Example([5, 6, 7], [IGNORED, 6, 7])
    assert (len(plain), plain.supervised_tokens, plain.supervised_weight) == (3, 2, 2.0)
    weighted = Example([5, 6, 7], [IGNORED, 6, 7], [9.0, 0.5, 0.25])
    assert (weighted.supervised_tokens, weighted.supervised_weight) == (2, 0.75)


def test_listed_examples_say_their_sizes():
    examples = ListedExamples(
        [Example([1, 2], [IGNORED, 2]), Example([1, 2, 3], [IGNORED, 2, 3], [0, 2, 0.5])]
    )
    assert examples.lengths.tolist() == [2, 3]
    assert examples.supervised.tolist() == [1.0, 2.5]
    assert (examples.lengths.dtype, examples.supervised.dtype) == (np.int32, np.float64)


def test_an_epoch_is_a_permutation_of_its_own():
    examples = listed(50)
    first, second = examples.epoch_order(0, 3), examples.epoch_order(1, 3)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist()
    assert first.tolist() == listed(50).epoch_order(0, 3).tolist()
    assert first.tolist() != examples.epoch_order(0, 4).tolist()


def test_digests_tell_examples_apart():
    same = listed(4).digest
    assert listed(4).digest == same
    assert listed(5).digest != same
    assert listed(4, first=1).digest != same
    one = Example([1, 2], [IGNORED, 2])
    assert ListedExamples([one]).digest != ListedExamples([Example([1, 2], [IGNORED, 1])]).digest
    weighted = Example(one.input_ids, one.labels, [1.0, 0.5])
    assert ListedExamples([one]).digest != ListedExamples([weighted]).digest


def test_a_mixture_is_its_parts_one_after_the_other():
    mixed = MixedExamples([(listed(3), 1.0), (listed(4, first=100), 1.0)])
    assert [mixed[i].input_ids[0] for i in range(len(mixed))] == [0, 1, 2, 100, 101, 102, 103]
    assert len(mixed.lengths) == len(mixed.supervised) == len(mixed) == mixed.epoch_size == 7


def test_weight_two_sees_each_row_twice_an_epoch():
    mixed = MixedExamples([(listed(10), 1.0), (listed(5), 2.0)])
    assert mixed.epoch_size == 20
    for epoch in range(3):
        seen = Counter(mixed.epoch_order(epoch, 0).tolist())
        assert seen == Counter({**dict.fromkeys(range(10), 1), **dict.fromkeys(range(10, 15), 2)})


def test_weight_a_half_sees_another_half_each_time():
    mixed = MixedExamples([(listed(10), 0.5), (listed(3), 1.0)])
    halves = [{i for i in mixed.epoch_order(epoch, 7).tolist() if i < 10} for epoch in range(4)]
    assert [len(half) for half in halves] == [5] * 4
    assert halves[0] | halves[1] == halves[2] | halves[3] == set(range(10))


@settings(deadline=None, max_examples=40)
@given(
    parts=st.lists(st.tuples(st.integers(1, 12), st.floats(0.01, 5)), min_size=1, max_size=3),
    epochs=st.integers(1, 4),
)
def test_over_epochs_rows_of_a_part_are_seen_equally_often(parts, epochs):
    mixed = MixedExamples([(listed(rows), weight) for rows, weight in parts])
    orders = [mixed.epoch_order(epoch, 1) for epoch in range(epochs)]
    assert {len(order) for order in orders} == {mixed.epoch_size}
    seen = np.bincount(np.concatenate(orders), minlength=len(mixed))
    start = 0
    for rows, _ in parts:
        mine = seen[start : start + rows]
        assert mine.max() - mine.min() <= 1
        start += rows


@pytest.mark.parametrize("change", ["weight", "part"])
def test_the_digest_of_a_mixture_knows_weights_and_parts(change):
    def digest(rows=4, weight=1.0):
        return MixedExamples([(listed(4), 1.0), (listed(rows, first=9), weight)]).digest

    assert digest() == digest()
    assert digest() != (digest(weight=2.0) if change == "weight" else digest(rows=5))
