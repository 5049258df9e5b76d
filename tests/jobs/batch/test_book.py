"""The file of answers: whole lines, and what is not asked again."""

import json
from pathlib import Path

import pytest

from raylora.errors import InvalidConfig, RayloraError
from raylora.jobs.batch.book import Book


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "out.jsonl"


def plan(version: str = "home@1", **other) -> dict:
    return {"input": "abc", "versions": {"home@champion": version}, "max_tokens": 8, **other}


def line(row: int, **fields) -> dict:
    return {"row": row, "adapter": "home@1", **(fields or {"answer": "yes"})}


def test_what_is_written_is_not_asked_again(path):
    with Book(path, plan()) as book:
        assert book.done == set()
        book.write([line(1), line(2, error="too long")])
    with Book(path, plan()) as again:
        assert again.done == {(1, "home@1"), (2, "home@1")}
        assert again.refused == 1
        again.write([line(3)])
    assert [json.loads(text)["row"] for text in path.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_line_that_was_cut_is_asked_again(path, cut):
    with Book(path, plan()) as book:
        book.write([line(1), line(2, answer="gr\u00f6sser")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Book(path, plan()) as again:
        assert again.done == {(1, "home@1")}
        again.write([line(2)])
    rows = [json.loads(text)["row"] for text in path.read_text("utf-8").splitlines()]
    assert rows == [1, 2]


def test_the_versions_of_the_beginning_stay(path):
    with Book(path, plan("home@1")):
        pass
    with Book(path, plan("home@2")) as again:
        assert again.versions == {"home@champion": "home@1"}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (plan(input="def"), "input"),
        (plan(max_tokens=9), "max_tokens"),
        (plan() | {"versions": {"sums": "sums@1"}}, "adapters"),
    ],
)
def test_another_batch_does_not_go_on_in_the_same_file(path, other, named):
    with Book(path, plan()) as book:
        book.write([line(1)])
    before = path.read_bytes()
    with pytest.raises(InvalidConfig, match=named), Book(path, other):
        pass
    assert path.read_bytes() == before


def test_a_file_of_somebody_else_is_left_alone(path):
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(InvalidConfig, match="no batch has written it"), Book(path, plan()):
        pass
    assert path.read_text() == "mine"


def test_two_batches_do_not_write_one_file(path):
    with (
        Book(path, plan()),
        pytest.raises(RayloraError, match="another batch"),
        Book(path, plan()),
    ):
        pass
    with Book(path, plan()):
        pass
