"""YAML from an untrusted hand: plain data and lines, or a problem that names the line, quickly."""

import time
from pathlib import Path

import pytest

from raylora.config.document import MAX_BYTES, Document, parse_document, read_document
from raylora.errors import InvalidConfig, Problem


def refusals(text: str) -> list[Problem]:
    """What is wrong with a text, whether or not the rest of it can be used."""
    try:
        return parse_document(text, "mine.yaml").problems
    except InvalidConfig as error:
        return list(error.problems)


def test_data_and_lines() -> None:
    document = parse_document("a: 1\nb:\n  c: 1e-3\n  d: [x, {y: z}]\n", "mine.yaml")
    assert document.data == {"a": 1, "b": {"c": 0.001, "d": ["x", {"y": "z"}]}}
    assert {key: document.lines[key] for key in ("a", "b", "b.c", "b.d.1.y")} == {
        "a": 1,
        "b": 2,
        "b.c": 3,
        "b.d.1.y": 4,
    }
    assert document.source("b.c") == "mine.yaml:3"


def test_scalars_are_what_they_look_like() -> None:
    text = "{a: no, b: 010, c: 1:30, d: 2001-01-01, e: true, f: ~, g: '1', h: -2, i: .5, j: 1_000}"
    assert parse_document(text, "mine.yaml").data == {
        "a": "no",
        "b": "010",
        "c": "1:30",
        "d": "2001-01-01",
        "e": True,
        "f": None,
        "g": "1",
        "h": -2,
        "i": 0.5,
        "j": "1_000",
    }


def test_aliases_are_expanded() -> None:
    document = parse_document("a: &a [x]\nb: *a\n", "mine.yaml")
    assert document.data["b"] == ["x"]


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: 1\na: 2", 2, "twice"),
        ("a:\n  b: 1\n  b: 2", 3, "twice"),
        ("a:\n\tb: 1", 2, "\\t"),
        ("\n- a", 0, "mapping"),
        ("a: !!python/object/apply:os.system [ls]", 1, "tag"),
        ("a: !!python/name:os.system x", 1, "tag"),
        ("a: !mine x", 1, "tag"),
        ("a: !!timestamp 2001-01-01", 1, "tag"),
        ("a: {<<: {b: 1}}", 1, "merge"),
        ("lora.r: 3", 1, "dots"),
        ("1: a", 1, "key"),
        ("? [a]\n: 1", 1, "key"),
        ("a: *b", 1, "alias"),
        ("a: &a\n  b: *a", 1, "aliases"),
        ("a: [", 1, "not YAML"),
        ("a: b: c", 1, "not YAML"),
        ("--- {a: 1}\n--- {b: 1}", 2, "document"),
        ("a: \x00", 0, "special"),
        ("a: " + "9" * 5000, 1, "cannot read"),
        ("a: " + "[" * 5000, 0, "deep"),
        ("a: " + "[" * 60 + "]" * 60, 1, "levels"),
    ],
)
def test_what_is_no_plain_data_is_refused_by_line(text: str, line: int, word: str) -> None:
    (problem,) = refusals(text)
    assert word in problem.message
    assert problem.remedy
    assert problem.source == (f"mine.yaml:{line}" if line else "mine.yaml")


def test_all_refusals_of_a_file_at_once() -> None:
    found = refusals("a: 1\na: 2\nb: !x 1\nc: {<<: {}}\n")
    assert [problem.key for problem in found] == ["a", "b", "c.<<"]


def test_bombs_are_refused_quickly() -> None:
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    started = time.monotonic()
    assert "expand" in refusals("\n".join(layers))[0].message
    assert "deep" in refusals("[" * MAX_BYTES)[0].message
    assert time.monotonic() - started < 10


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"

    def message() -> str:
        with pytest.raises(InvalidConfig) as caught:
            read_document(path)
        (problem,) = caught.value.problems
        assert problem.source == str(path)
        return problem.message

    assert "cannot be read" in message()
    path.write_bytes(b"a: \xff")
    assert "UTF-8" in message()
    path.write_bytes(b"# " + b"x" * MAX_BYTES)
    assert "larger" in message()
    path.write_text("a: 1")
    assert read_document(path) == Document(str(path), {"a": 1}, {"a": 1})
