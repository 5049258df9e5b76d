import json
import tracemalloc
from pathlib import Path

import pytest

from raylora.config.data_spec import DataSpec
from raylora.errors import ExitCode, InvalidData
from raylora.jobs.data.faults import MAX_PROBLEMS
from raylora.jobs.data.lines import MAX_LINE_BYTES
from raylora.jobs.data.partition import held_out_rows, held_out_sources, training_rows
from raylora.jobs.data.records import Fault
from raylora.jobs.data.rows import read_rows

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "hi"}
GOOD = json.dumps({"messages": [USER, ANSWER]})


@pytest.fixture
def data(tmp_path: Path):
    def write(content: str | bytes, name="rows.jsonl") -> Path:
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(raw)
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
        (b'{"messages": [', "not JSON"),
        (b'{"messages": "\xff"}', "not UTF-8: byte 0xff at offset 14"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"text": "a", "label": 1}', "a row of shape text among rows of shape messages"),
        (row(USER, {"role": "robot", "content": "hi"}).encode(), "the unknown role 'robot'"),
    ],
)
def test_a_bad_line_is_named_with_its_remedy(data, line, says):
    base = data(GOOD.encode() + b"\n" + line + b"\n" + GOOD.encode() + b"\n")
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


def numbered(count: int) -> str:
    rows = ({"prompt": f"question {i}", "completion": f"answer {i % 50}"} for i in range(count))
    return "".join(json.dumps(row) + "\n" for row in rows)


def asked(rows) -> list[str]:
    return [one.content.messages[0]["content"] for one in rows]


def held_out(spec: DataSpec, base: Path) -> list:
    sources = held_out_sources(spec, base)
    return [row for source in sources for row in held_out_rows(source, spec, base)]


def test_a_ratio_holds_out_by_what_rows_say(data):
    base = data(numbered(400) * 2 + "nope\n")
    spec = DataSpec(train="rows.jsonl", validation=None, validation_ratio=0.2)
    (source,) = spec.sources
    found = list(training_rows(source, spec, base))
    train = asked(one for one in found if not isinstance(one, Fault))
    held = asked(held_out(spec, base))
    assert [one.place.line for one in found if isinstance(one, Fault)] == [801]
    assert len(train) + len(held) == 800
    assert not set(train) & set(held)
    assert 0.14 < len(held) / 800 < 0.26
    assert held == asked(held_out(spec, base))
    more = spec.model_copy(update={"validation_ratio": 0.4})
    assert set(held) < set(asked(held_out(more, base)))


def test_a_split_of_a_folder_is_held_out(data, tmp_path):
    data(numbered(3), "train.jsonl")
    data(numbered(5), "test.jsonl")
    spec = DataSpec(train=str(tmp_path), validation=None, validation_split="test")
    assert len(list(training_rows(spec.sources[0], spec, Path()))) == 3
    assert len(list(held_out(spec, Path()))) == 5
    file = spec.model_copy(update={"train": "train.jsonl"})
    with pytest.raises(InvalidData, match="has no splits"):
        list(held_out(file, tmp_path))


def test_a_file_is_held_out_in_the_shape_of_the_training_rows(data):
    base = data('{"q": "hello", "a": "hi"}\n', "held.jsonl")
    spec = DataSpec(validation="held.jsonl", columns={"prompt": "q", "completion": "a"})
    assert asked(held_out(spec, base)) == ["hello"]
    assert list(held_out(DataSpec(validation=None), base)) == []
