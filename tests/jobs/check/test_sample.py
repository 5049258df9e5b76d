from raylora.jobs.check.sample import Sample


def filled(sample: Sample[int], stream: range, size: int = 1) -> Sample[int]:
    for item in stream:
        priority = sample.draw()
        if priority is not None:
            sample.keep(priority, item, size)
    return sample


def test_a_short_stream_is_kept_in_order() -> None:
    sample = filled(Sample(10, 1000), range(10))
    assert list(sample) == list(range(10))
    assert sample.is_all


def test_a_long_stream_is_sampled_evenly() -> None:
    counts = [0, 0, 0, 0]
    for seed in range(40):
        sample = filled(Sample(50, 10**6, seed), range(2000))
        assert len(sample) == 50
        assert not sample.is_all
        for item in sample:
            counts[item // 500] += 1
    assert all(400 < count < 600 for count in counts)


def test_bytes_bound_it_too() -> None:
    assert len(filled(Sample(50, 1000), range(200), size=100)) == 10


def test_one_item_that_is_too_large_is_not_kept() -> None:
    assert len(filled(Sample(5, 10), range(1), size=100)) == 0


def test_nothing_is_kept_where_nothing_may_be() -> None:
    assert len(filled(Sample(0, 1000), range(5))) == 0
