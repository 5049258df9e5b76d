from hypothesis import given
from hypothesis import strategies as st

from raylora.jobs.check.histogram import MOST_BUCKETS, Bucket, histogram


def test_buckets_are_round() -> None:
    assert histogram([3, 44, 99]) == (
        Bucket(0, 9, 1),
        *(Bucket(low, low + 9, 1 if low in {40, 90} else 0) for low in range(10, 100, 10)),
    )


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_every_row_is_in_one_of_few_buckets(lengths: list[int]) -> None:
    buckets = histogram(lengths)
    assert len(buckets) <= MOST_BUCKETS
    assert [bucket.rows for bucket in buckets] == [
        sum(bucket.first <= length <= bucket.last for length in lengths) for bucket in buckets
    ]
    assert sum(bucket.rows for bucket in buckets) == len(lengths)


def test_no_rows_have_no_buckets() -> None:
    assert histogram([]) == ()
