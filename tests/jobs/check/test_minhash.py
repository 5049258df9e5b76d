import random

import numpy as np
import pytest

from raylora.jobs.check.minhash import BINS, MAX_TEXT, PIECE, band_keys, normal, sign, similarity


def pieces(text: bytes) -> set[bytes]:
    return {text[i : i + PIECE] for i in range(len(text) - PIECE + 1)}


def changed(words: list[str], share: float, rng: random.Random) -> str:
    return " ".join(word[::-1] if rng.random() < share else word for word in words)


@pytest.mark.parametrize("length", [12, 60, 400])
def test_the_estimate_is_the_jaccard_similarity_give_or_take(length: int) -> None:
    rng = random.Random(length)
    errors: list[float] = []
    for _ in range(300):
        words = [f"{rng.getrandbits(30):x}" for _ in range(length // 4)]
        left, right = normal(" ".join(words)), normal(changed(words, rng.random() / 4, rng))
        exact = len(pieces(left) & pieces(right)) / len(pieces(left) | pieces(right))
        (estimate,) = similarity(sign([left]), sign([right]))
        errors.append(estimate - exact)
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.09


def test_a_signature_does_not_depend_on_its_neighbours() -> None:
    rng = random.Random(1)
    texts = [normal(f"{rng.getrandbits(rng.randrange(8, 9000)):x}") for _ in range(300)]
    together = sign(texts)
    assert together.shape == (300, BINS)
    assert all((sign([text]) == row).all() for text, row in zip(texts, together, strict=True))


def test_case_space_and_what_lies_far_behind_do_not_count() -> None:
    assert normal("Turn  ON\n the lamp") == normal("turn on the lamp")
    assert normal("x" * MAX_TEXT + "a") == normal("x" * MAX_TEXT + "b")


@pytest.mark.parametrize("text", ["", "a", "\ud83d", "\N{SNOWMAN}"])
def test_short_and_odd_texts_have_signatures(text: str) -> None:
    assert similarity(sign([normal(text)]), sign([normal(text)])) == 1


def test_nothing_has_no_signature() -> None:
    assert sign([]).shape == (0, BINS)
    assert band_keys(sign([])).shape[1] == 0
