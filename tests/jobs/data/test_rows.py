import json
import tracemalloc
from pathlib import Path

import pytest

from raylora.errors import ExitCode, InvalidData
from raylora.jobs.data.conversation import MAX_LINE_BYTES
from raylora.jobs.data.rows import MAX_PROBLEMS, read_rows

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "hi"}
GOOD = json.dumps({"messages": [USER, ANSWER]})


@pytest.fixture
def data(tmp_path: Path):
    def write(content: str | bytes) -> Path:
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / "rows.jsonl").write_bytes(raw)
        return tmp_path

    return write


def row(*messages: object) -> str:
    return json.dumps({"messages": messages})


def test_rows_keep_their_messages_and_line_numbers(data):
    other = row({"role": "system", "content": "s"}, USER, ANSWER, USER, ANSWER)
    rows = read_rows("rows.jsonl", data(f"{GOOD}\n\n{other}"))
    assert [row.line for row in rows] == [1, 3]
    assert rows.items[0].messages == (USER, ANSWER)
    assert [m["role"] for m in rows.items[1].messages][:2] == ["system", "user"]


def test_the_digest_is_of_the_messages_not_of_their_spelling(data):
    first = read_rows("rows.jsonl", data(GOOD + "\n" + row(USER, ANSWER)))
    spaced = json.dumps(
        {"id": 7, "messages": [USER, ANSWER]}, indent=None, separators=(", ", " :")
    )
    same = read_rows("rows.jsonl", data(f"{spaced}\r\n{GOOD}\n"))
    other = read_rows("rows.jsonl", data(GOOD + "\n" + row(USER, {**ANSWER, "content": "ho"})))
    assert first.digest == same.digest
    assert first.digest != other.digest


def test_the_system_prompt_goes_where_there_is_none(data):
    own = {"role": "system", "content": "own"}
    rows = read_rows("rows.jsonl", data(f"{GOOD}\n{row(own, USER, ANSWER)}\n")).items
    assert rows[0].conversation("ours")[0] == {"role": "system", "content": "ours"}
    assert rows[0].conversation(None) == [USER, ANSWER]
    assert rows[1].conversation("ours") == [own, USER, ANSWER]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"messages": [', "not JSON"),
        (b'{"messages": "\xff"}', "not UTF-8: byte 0xff at offset 14"),
        ("[" * 100_000, "nested too deep"),
        ('{"n": ' + "1" * 5000 + "}", "number too long"),
        ("[1, 2]", "a list where an object belongs"),
        ("null", "null where an object belongs"),
        ('{"text": "a", "label": 1}', "no column 'messages'; the columns are: text, label"),
        ("{}", "the columns are: none"),
        ('{"messages": "hello"}', "column 'messages' is a string"),
        ('{"messages": []}', "column 'messages' is an empty list"),
        (row("hello"), "messages[0] is a string"),
        (row({"role": "user"}), "messages[0] has the keys: role"),
        (row({**USER, "name": "Bob"}, ANSWER), "messages[0] has the keys: role, content, name"),
        (
            row(USER, {"role": "robot", "content": "hi"}),
            "messages[1] has the unknown role 'robot'",
        ),
        (row(USER, {"role": ["user"], "content": "hi"}), "messages[1] has the unknown role"),
        (row(USER, {**ANSWER, "content": None}), "messages[1] has null as its content"),
        (row(USER, {**ANSWER, "content": " \n"}), "messages[1] has no content"),
        (row(USER, {**ANSWER, "content": "\ud800"}), "half of a surrogate pair"),
        (row(USER), "no assistant message"),
        (row(USER, ANSWER, USER), "ends with the user"),
        (row(ANSWER), "begins with the assistant"),
        (row(USER, {"role": "system", "content": "late"}, ANSWER), "a system message comes late"),
    ],
)
def test_a_bad_line_is_named_with_its_remedy(data, line, says):
    raw = line.encode() if isinstance(line, str) else line
    base = data(GOOD.encode() + b"\n" + raw + b"\n" + GOOD.encode() + b"\n")
    with pytest.raises(InvalidData) as caught:
        read_rows("rows.jsonl", base)
    error = caught.value
    assert "rows.jsonl:2: " in error.message
    assert says in error.message
    assert (error.line, error.exit_code) == (2, ExitCode.DATA)
    assert error.file.endswith("rows.jsonl")
    assert error.hint


def test_all_bad_lines_are_reported_together(data):
    base = data(f"{GOOD}\nnope\n{GOOD}\n{row(USER)}\n")
    with pytest.raises(InvalidData) as caught:
        read_rows("rows.jsonl", base)
    first, second = caught.value.message.splitlines()
    assert "rows.jsonl:2: not JSON" in first
    assert "rows.jsonl:4: no assistant message" in second
    assert "add the assistant's answer" in second


def test_reading_stops_after_many_bad_lines(data):
    with pytest.raises(InvalidData) as caught:
        read_rows("rows.jsonl", data("nope\n" * 1000))
    lines = caught.value.message.splitlines()
    assert len(lines) == MAX_PROBLEMS + 1
    assert "stopped reading" in lines[-1]


def test_a_giant_line_is_refused_in_bounded_memory(data):
    base = data(b'{"messages": "' + b"x" * 60_000_000 + b'"}\n' + b"nope\n")
    tracemalloc.start()
    with pytest.raises(InvalidData) as caught:
        read_rows("rows.jsonl", base)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    first, second = caught.value.message.splitlines()
    assert f"rows.jsonl:1: longer than {MAX_LINE_BYTES} bytes" in first
    assert "rows.jsonl:2: not JSON" in second
    assert peak < 8 * MAX_LINE_BYTES


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_an_error(data, content):
    with pytest.raises(InvalidData, match=r"rows.jsonl: no rows"):
        read_rows("rows.jsonl", data(content))


@pytest.mark.parametrize("source", ["missing.jsonl", "."])
def test_what_cannot_be_read_is_an_error(tmp_path, source):
    with pytest.raises(InvalidData, match="cannot be read") as caught:
        read_rows(source, tmp_path)
    assert caught.value.exit_code is ExitCode.DATA


def test_bundled_data_sets_go_by_name(tmp_path):
    rows = read_rows("bundled:home_requests/heldout", tmp_path)
    assert rows.source == "bundled:home_requests/heldout"
    assert rows.items[0].messages[-1]["role"] == "assistant"


def test_an_unknown_bundled_name_lists_what_there_is(tmp_path):
    with pytest.raises(InvalidData) as caught:
        read_rows("bundled:home_requests/test", tmp_path)
    assert "bundled:home_requests/train" in str(caught.value.hint)
