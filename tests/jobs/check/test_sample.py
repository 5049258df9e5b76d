import random

from raylora.jobs.check.sample import Sample


def filled(sample: Sample[int], stream: range, size: int = 1, seed: int = 0) -> Sample[int]:
    rng = random.Random(seed)
    for item in stream:
        priority = rng.random()
        if priority < sample.limit:
            sample.offer(priority, item, size)
    return sample


def test_a_short_stream_is_kept_in_order() -> None:
    assert list(filled(Sample(10, 1000), range(10))) == list(range(10))


def test_a_long_stream_is_sampled_evenly() -> None:
    counts = [0, 0, 0, 0]
    for seed in range(40):
        sample = filled(Sample(50, 10**6), range(2000), seed=seed)
        assert len(sample) == 50
        assert list(sample) == sorted(sample)
        for item in sample:
            counts[item // 500] += 1
    assert all(400 < count < 600 for count in counts)


def test_bytes_bound_it_too() -> None:
    assert len(filled(Sample(50, 1000), range(200), size=100)) == 10


def test_what_is_too_large_or_too_many_is_not_kept() -> None:
    assert len(filled(Sample(5, 10), range(1), size=100)) == 0
    assert len(filled(Sample(0, 1000), range(5))) == 0
