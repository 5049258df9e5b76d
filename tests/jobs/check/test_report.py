"""What the check finds in files with known faults."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raylora.config.data_spec import DataSpec
from raylora.errors import InvalidData
from raylora.jobs.check.report import Options, Report, check
from raylora.jobs.check.source_report import Column

LOOK = Options(sample=100, every_row=False, previews=1)
RNG = random.Random(0)


def row(question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def some_text(words: int = 20) -> str:
    return " ".join(f"{RNG.getrandbits(24):x}" for _ in range(words))


def some_rows(count: int) -> list[dict[str, Any]]:
    return [row(some_text(), some_text(5)) for _ in range(count)]


Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows, or lines as they are, into a file; gives its name."""

    def lines(rows: list[Any], name: str = "rows.jsonl") -> str:
        texts = (one if isinstance(one, str) else json.dumps(one) for one in rows)
        (tmp_path / name).write_text("\n".join(texts) + "\n", encoding="utf-8")
        return name

    return lines


@pytest.fixture
def look(tmp_path: Path, tiny_tokenizer: Any) -> Callable[..., Report]:
    """Check files of the test's folder."""

    def checked(train: str, options: Options = LOOK, **data: Any) -> Report:
        spec = DataSpec.model_validate({"train": train, "validation": None, **data})
        return check(spec, tmp_path, options, lambda: copy.deepcopy(tiny_tokenizer))

    return checked


def test_a_good_file_has_no_problems(look, write: Write) -> None:
    rows = [one | {"id": 1} for one in some_rows(4)] + some_rows(6)
    report = look(write(rows))
    (source,) = report.sources
    assert (source.part, source.shape) == ("train", "messages")
    assert (source.rows, source.bad_rows) == (10, 0)
    assert source.columns == (Column("messages", 10), Column("id", 4))
    assert source.files == 1
    assert source.bytes > 1000
    assert source.near_duplicates.is_all
    assert report.problems == ()
    assert report.leakage == ()


def test_bad_rows_are_named_with_line_and_remedy(look, write: Write) -> None:
    rows = [*some_rows(1), '{"messages": [', *some_rows(1), {"messages": [{"role": "bot"}]}]
    report = look(write(rows))
    (source,) = report.sources
    assert (source.rows, source.bad_rows) == (4, 2)
    assert [problem.line for problem in report.problems] == [2, 4]
    assert all(problem.file.endswith("rows.jsonl") for problem in report.problems)
    assert "bot" in report.problems[1].message
    assert "assistant" in report.problems[1].hint


def test_each_kind_of_bad_line_is_passed_over(look, write: Write, tmp_path: Path) -> None:
    good = json.dumps(row("Why?", "So.")).encode()
    bad = [b"\xff\xfe", b"[" * 100_000, b'"' + b"a" * 1_500_000 + b'"', b"null", b'{"text": "x"}']
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join([good, *bad, good]))
    (source,) = look("bad.jsonl", bad_rows="skip").sources
    assert (source.rows, source.bad_rows) == (7, 5)
    assert [problem.line for problem in source.bad] == [2, 3, 4, 5, 6]
    assert all(problem.hint for problem in source.bad)


def test_skipped_rows_are_listed_and_no_problem(look, write: Write) -> None:
    report = look(write([*some_rows(2), "[]"]), bad_rows="skip")
    assert report.problems == ()
    assert report.sources[0].bad[0].line == 3


@pytest.mark.parametrize("rows", [[], ["{}"], ["not json"]])
def test_a_file_without_a_good_row_is_refused(look, write: Write, rows: list[str]) -> None:
    with pytest.raises(InvalidData, match=r"rows\.jsonl"):
        look(write(rows))


def test_equal_and_nearly_equal_rows(look, write: Write) -> None:
    rows = some_rows(10)
    near = json.loads(json.dumps(rows[2]))
    near["messages"][0]["content"] += " once more"
    report = look(write([*rows, {"id": 7, **rows[4]}, near]))
    (source,) = report.sources
    (group,) = source.duplicates.groups
    assert source.duplicates.rows == 1
    assert [place.line for place in group.places] == [5, 11]
    found = {(pair.row.line, pair.other.line) for pair in source.near_duplicates.pairs}
    assert found == {(11, 5), (12, 3)}


def test_a_system_message_makes_no_rows_alike(look, write: Write) -> None:
    system = {"role": "system", "content": some_text(200)}
    rows = [{"messages": [system, *one["messages"]]} for one in some_rows(20)]
    (source,) = look(write(rows)).sources
    assert source.near_duplicates.rows == 0


def test_leakage_whole_by_prompt_and_nearly(look, write: Write) -> None:
    train, heldout = some_rows(20), some_rows(5)
    heldout[0] = train[3]
    heldout[1] = row(train[4]["messages"][0]["content"], some_text(5))
    heldout[2] = row(
        train[5]["messages"][0]["content"] + " so", train[5]["messages"][1]["content"]
    )
    (leak,) = look(write(train), validation=write(heldout, "held.jsonl")).leakage
    assert leak.heldout_rows == 5
    assert [(pair.heldout.line, pair.train.line) for pair in leak.rows.examples] == [(1, 4)]
    assert [pair.heldout.line for pair in leak.prompts.examples] == [1, 2]
    assert {(pair.row.line, pair.other.line) for pair in leak.near.pairs} >= {(1, 4), (3, 6)}


def test_a_share_held_out_never_shares_a_row(look, write: Write) -> None:
    rows = some_rows(60)
    report = look(write(rows * 2), validation_ratio=0.3)
    train, heldout = report.sources
    assert train.rows + heldout.rows == 120
    assert 15 < heldout.rows < 60
    (leak,) = report.leakage
    assert leak.rows.rows == 0


def test_a_share_that_holds_out_nothing_is_refused_as_such(look, write: Write) -> None:
    with pytest.raises(InvalidData, match=r"validation_ratio=0\.001 holds out none"):
        look(write(some_rows(2)), validation_ratio=0.001)


def test_lengths_and_what_is_learnt(look, write: Write) -> None:
    """A token is a byte; what the template puts around two turns is known."""
    report = look(write([row("a" * 10, "b" * 5), row("a" * 30, "b" * 20)]))
    (tokens,) = report.tokens
    assert (tokens.rows, tokens.is_all, tokens.too_long) == (2, True, 0)
    assert tokens.supervised == 5 + 20 + 2
    first, second = sorted(tokens.longest, key=lambda measured: measured.place.line)
    assert second.tokens - first.tokens == 35
    assert tokens.tokens == first.tokens + second.tokens
    assert (first.supervised, second.supervised) == (6, 21)
    assert tokens.least_supervised[0].place.line == 1
    assert sum(bucket.rows for bucket in tokens.histogram) == 2


def test_the_preview_marks_exactly_the_answer(look, write: Write) -> None:
    (tokens,) = look(write([row("Why?", "Because.")])).tokens
    (preview,) = tokens.preview
    learnt = ["".join(span.tokens) for span in preview.spans if span.learnt]
    given = ["".join(span.tokens) for span in preview.spans if not span.learnt]
    assert learnt == ["Because.<|im_end|>"]
    assert given[0] == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("truncation", "unsupervised", "problems"),
    [("error", 0, 1), ("drop", 0, 0), ("right", 1, 1), ("left", 0, 0), ("split", 0, 0)],
)
def test_rows_that_are_too_long(
    look, write: Write, truncation: str, unsupervised: int, problems: int
) -> None:
    rows = [row("short", "yes"), row("a" * 90, "b" * 20)]
    report = look(write(rows), max_length=80, truncation=truncation)
    (tokens,) = report.tokens
    assert (tokens.too_long, tokens.unsupervised) == (1, unsupervised)
    assert tokens.longest[0].tokens > 110
    assert [problem.line for problem in report.problems] == [2] * problems


def test_a_row_that_the_template_refuses_is_a_problem(
    look, write: Write, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    picky = "{% if messages | length > 3 %}{{ raise_exception('too many turns') }}{% endif %}"
    (tmp_path / "picky.jinja").write_text(picky + tiny_tokenizer.chat_template, encoding="utf-8")
    turns = [*row("a", "b")["messages"], *row("c", "d")["messages"]]
    report = look(write([row("a", "b"), {"messages": turns}]), chat_template="picky.jinja")
    (problem,) = report.problems
    assert problem.line == 2
    assert "too many turns" in problem.message
    assert report.tokens[0].unusable == 1


def test_a_sample_is_said_to_be_one_and_the_longest_row_is_told_of_all_the_same(
    look, write: Write
) -> None:
    rows = some_rows(300)
    rows[200] = row("a" * 3000, "b")
    (tokens,) = look(write(rows), Options(20, False, 0), max_length=1000).tokens
    assert (tokens.rows, tokens.is_all) == (20, False)
    assert tokens.longest[0].place.line == 201
    (tokens,) = look(write(rows), Options(20, True, 0), max_length=1000).tokens
    assert (tokens.rows, tokens.is_all, tokens.too_long) == (300, True, 1)


def test_without_a_sample_no_tokenizer_is_loaded(write: Write, tmp_path: Path) -> None:
    def none() -> Any:
        raise AssertionError("a tokenizer was asked for")

    data = DataSpec(train=write(some_rows(3)), validation=None)
    assert check(data, tmp_path, Options(0, False, 2), none).tokens == ()


def test_each_source_of_a_mixture_is_told_of(look, write: Write) -> None:
    more = write([{"text": some_text()}], "more.jsonl")
    report = look(write(some_rows(2)), mixture=[{"source": more}])
    assert [source.shape for source in report.sources] == ["messages", "text"]
    assert [tokens.rows for tokens in report.tokens] == [2, 1]
