import random

from raylora.jobs.check.minhash import normal, sign
from raylora.jobs.check.near_duplicates import across, within

RNG = random.Random(0)
WORDS = [f"{RNG.getrandbits(32):x}" for _ in range(2000)]


def texts(count: int, length: int = 40) -> list[str]:
    return [" ".join(RNG.choices(WORDS, k=length)) for _ in range(count)]


def variant(text: str) -> str:
    """The same but for one word."""
    words = text.split()
    words[RNG.randrange(len(words))] = "otherwise"
    return " ".join(words)


def signatures(found: list[str]):
    return sign([normal(text) for text in found])


def test_finds_each_later_variant_and_nothing_else() -> None:
    originals = texts(500)
    variants = [variant(text) for text in originals[:200]]
    near = within(signatures(originals + variants))
    assert set(near.texts) == set(range(500, 700))
    assert (near.texts - 500 == near.others).all()
    assert list(near.similarities) == sorted(near.similarities, reverse=True)
    assert near.similarities.min() >= 0.8


def test_a_group_counts_all_but_its_first() -> None:
    (text,) = texts(1)
    near = within(signatures([text, *(variant(text) for _ in range(50))]))
    assert sorted(near.texts) == list(range(1, 51))


def test_a_shared_half_is_no_near_duplicate() -> None:
    half = " ".join(RNG.choices(WORDS, k=20))
    assert len(within(signatures([f"{half} {text}" for text in texts(200, 20)]))) == 0


def test_finds_held_out_texts_that_training_has() -> None:
    train, heldout = texts(400), texts(20)
    heldout[3], heldout[7] = variant(train[50]), train[60]
    near = across(signatures(heldout), signatures(train))
    assert list(zip(near.texts, near.others, strict=True)) == [(7, 60), (3, 50)]
    assert near.similarities[0] == 1


def test_nothing_is_near_nothing() -> None:
    some = signatures(texts(3))
    assert len(within(signatures([]))) == 0
    assert len(across(some, signatures([]))) == 0
    assert len(across(signatures([]), some)) == 0
