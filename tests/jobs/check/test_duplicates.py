import pytest

from raylora.jobs.check.duplicates import Pair, repeated, shared
from raylora.jobs.check.row_keys import RowKeys
from raylora.jobs.data.records import Place


def keys(rows: list[str], file: str = "a.jsonl", most: int = 100) -> RowKeys:
    noted = RowKeys(most)
    for line, row in enumerate(rows, start=1):
        noted.add(row, Place(file, line))
    return noted


def test_counts_all_but_the_first_of_each_group() -> None:
    found = repeated(keys(["x", "y", "x", "z", "x", "y"]))
    assert (found.rows, found.share, found.looked_at) == (3, 0.5, 1)
    assert [group.rows for group in found.groups] == [3, 2]
    assert [str(place) for place in found.groups[0].places] == [
        "a.jsonl:1",
        "a.jsonl:3",
        "a.jsonl:5",
    ]


def test_finds_copies_in_another_file() -> None:
    noted = keys(["x", "y"])
    noted.add("y", Place("b.jsonl", 1))
    (group,) = repeated(noted).groups
    assert group.places == (Place("a.jsonl", 2), Place("b.jsonl", 1))


def test_finds_held_out_rows_in_the_training_rows() -> None:
    found = shared(keys(["p", "y", "q", "x"], "held.jsonl"), keys(["x", "y", "z"]))
    assert (found.rows, found.share) == (2, 0.5)
    assert found.examples == (
        Pair(Place("held.jsonl", 2), Place("a.jsonl", 2)),
        Pair(Place("held.jsonl", 4), Place("a.jsonl", 1)),
    )


def test_more_rows_than_are_remembered_give_an_estimate() -> None:
    rows = [f"row {number % 27_000}" for number in range(36_000)]
    noted = keys(rows, most=10_000)
    found = repeated(noted)
    assert noted.one_in == 4
    assert found.looked_at == 0.25
    assert found.rows == pytest.approx(9_000, rel=0.1)
    heldout = keys([f"row {number}" for number in range(26_000, 28_000)], "held.jsonl", 10_000)
    leaked = shared(heldout, noted)
    assert leaked.share == pytest.approx(0.5, abs=0.1)
    assert leaked.looked_at == 0.25
    assert all(pair.train.line - 1 == pair.heldout.line + 25_999 for pair in leaked.examples)


def test_nothing_equals_nothing() -> None:
    assert repeated(keys([])).rows == 0
    assert shared(keys([]), keys(["x"])).rows == 0
    assert shared(keys(["x"]), keys([])).rows == 0
