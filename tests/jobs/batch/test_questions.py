"""What rows ask, and what is said of those that ask nothing."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from raylora.errors import InvalidData
from raylora.jobs.batch.questions import Question, Unasked, questions

HELLO = {"role": "user", "content": "hello"}


@pytest.fixture
def asked(tmp_path: Path):
    """What these lines of a JSONL file ask."""

    def read(*rows: object) -> list[Question | Unasked]:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return list(questions("in.jsonl", tmp_path))

    return read


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [HELLO]},
        {"messages": [HELLO, {"role": "assistant", "content": "the reference"}]},
        {"prompt": "hello"},
        {"prompt": "hello", "completion": "the reference"},
        {"prompt": [HELLO]},
        {"instruction": "hello"},
        {"instruction": "hello", "output": ""},
        {"conversations": [{"from": "human", "value": "hello"}]},
        {"body": {"model": "x", "messages": [HELLO]}},
    ],
)
def test_a_row_of_any_shape_asks_with_and_without_its_answer(asked, row):
    [question] = asked(row)
    assert [dict(message) for message in question.messages] == [HELLO]


def test_earlier_turns_tools_and_names_are_kept(asked):
    turns = [HELLO, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "and?"}]
    [one, two] = asked({"messages": turns, "custom_id": "a-1"}, {"messages": [HELLO], "id": 7})
    assert [message["content"] for message in one.messages] == ["hello", "hi", "and?"]
    assert (one.id, two.id) == ("a-1", "7")
    assert (one.row, two.row) == (1, 2)


def test_a_rows_own_system_prompt_goes_first(asked):
    own = {"role": "system", "content": "Own."}
    [plain, prompted] = asked({"messages": [HELLO]}, {"messages": [own, HELLO]})
    assert plain.prompted("Ours.")[0] == {"role": "system", "content": "Ours."}
    assert prompted.prompted("Ours.")[0] == own
    assert plain.prompted("") == plain.prompted(None) == plain.messages


def test_rows_that_ask_nothing_say_why_and_the_others_go_on(asked):
    found = asked(
        {"messages": [HELLO]},
        "{",
        {"messages": []},
        {"messages": [{"role": "user", "content": "  "}], "id": "blank"},
        {"messages": [{"role": "wizard", "content": "x"}]},
        {"messages": [HELLO]},
    )
    assert [isinstance(each, Question) for each in found] == [True, *[False] * 4, True]
    reasons = [each.reason for each in found if isinstance(each, Unasked)]
    assert [reason.split(":")[:2] for reason in reasons] == [
        ["in.jsonl", str(n)] for n in (2, 3, 4, 5)
    ]
    assert "no content" in reasons[2]
    assert "wizard" in reasons[3]
    assert found[3].id == "blank"
    assert [each.row for each in found] == [1, 2, 3, 4, 5, 6]


def test_text_alone_asks_nothing(asked):
    [found] = asked({"text": "once upon a time"})
    assert "asks nothing" in found.reason


def test_csv_and_parquet_are_read_too(tmp_path):
    (tmp_path / "in.csv").write_text("id,prompt\n1,hello\n2,again\n", encoding="utf-8")
    table = pyarrow.table({"messages": [[HELLO], [HELLO]]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    asked = [each for each in questions("in.csv", tmp_path) if isinstance(each, Question)]
    texts = [each.messages[-1]["content"] for each in asked]
    assert texts == ["hello", "again"]
    assert len(list(questions("in.parquet", tmp_path))) == 2


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InvalidData):
        list(questions("none.jsonl", tmp_path))
