"""Files, globs, folders, URLs, the hub and what ships, in every format."""

import bz2
import csv
import gzip
import json
import lzma
import tracemalloc
from pathlib import Path

import datasets
import datasets.exceptions
import fsspec
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from raylora.config.data_spec import SourceSpec
from raylora.errors import ExitCode, InvalidData
from raylora.jobs.data.lines import MAX_LINE_BYTES
from raylora.jobs.data.records import Fault, Record
from raylora.jobs.data.sources import fingerprint, locate, records

ROWS = [{"prompt": "a, b", "completion": 'x "y"\nz'}, {"prompt": "\xe9", "completion": "2"}]


def found(source: str, base: Path, **fields):
    return list(records(SourceSpec(source=source, **fields), base))


def fields(source: str, base: Path, **more):
    return [fields_of(row) for row in found(source, base, **more)]


def fields_of(row: Record | Fault):
    assert isinstance(row, Record)
    return row.fields


def lines(rows=ROWS) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_csv(path: Path, delimiter=",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def write_stream(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


WRITERS = {
    "rows.jsonl": lambda path: path.write_bytes(lines()),
    "rows.ndjson": lambda path: path.write_bytes(lines()),
    "rows.json": lambda path: path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8"),
    "lines.json": lambda path: path.write_bytes(lines()),
    "rows.csv": write_csv,
    "rows.tsv": lambda path: write_csv(path, "\t"),
    "rows.parquet": lambda path: parquet.write_table(pa.Table.from_pylist(ROWS), path),
    "stream.arrow": write_stream,
    "rows.feather": lambda path: feather.write_feather(pa.Table.from_pylist(ROWS), str(path)),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(lines())),
    "rows.jsonl.bz2": lambda path: path.write_bytes(bz2.compress(lines())),
    "rows.json.xz": lambda path: path.write_bytes(lzma.compress(lines())),
    "rows.JSONL.ZST": lambda path: path.write_bytes(pa.compress(lines(), "zstd", asbytes=True)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert fields(name, tmp_path) == ROWS


def test_places_are_lines_where_there_are_lines(tmp_path):
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.parquet"):
        WRITERS[name](tmp_path / name)
    assert [row.place.line for row in found("rows.jsonl", tmp_path)] == [1, 2]
    assert [row.place.line for row in found("rows.json", tmp_path)] == [2, 6]
    assert [row.place.line for row in found("rows.csv", tmp_path)] == [2, 4]
    assert [row.place.line for row in found("rows.parquet", tmp_path)] == [1, 2]
    assert str(found("rows.csv", tmp_path)[1].place) == f"{tmp_path}/rows.csv:4"


def test_a_text_file_has_one_row_a_line(tmp_path):
    (tmp_path / "book.txt").write_bytes("one\r\n\n  two \xe9\n".encode())
    assert fields("book.txt", tmp_path) == [{"text": "one"}, {"text": "  two \xe9"}]


def test_globs_and_folders_are_read_in_the_order_of_names(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    (tmp_path / "README.md").write_text("no data")
    (tmp_path / ".hidden.jsonl").write_text("no data")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.jsonl").write_text(json.dumps({"text": "c"}))
    assert [row["text"] for row in fields("*.jsonl", tmp_path)] == ["a", "b"]
    assert [row["text"] for row in fields("**/*.jsonl", tmp_path)] == ["a", "b", "c"]
    assert [row["text"] for row in fields(".", tmp_path)] == ["a", "b", "c"]


def test_a_name_with_brackets_is_a_name_where_there_is_such_a_file(tmp_path):
    (tmp_path / "rows[1].jsonl").write_bytes(lines())
    assert len(fields("rows[1].jsonl", tmp_path)) == 2


def test_names_in_a_folder_tell_splits_apart(tmp_path):
    (tmp_path / "test").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test/rows"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    assert len(fields(".", tmp_path)) == 2
    assert fields(".", tmp_path, split="test") == [{"text": "test/rows"}]
    with pytest.raises(InvalidData, match="no file of the split 'validation'.*test, train"):
        found(".", tmp_path, split="validation")


def test_urls_of_fsspec_are_read(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/a.jsonl", lines(ROWS[:1]))
    memory.pipe("/bucket/b.jsonl.gz", gzip.compress(lines(ROWS[1:])))
    assert fields("memory://bucket/a.jsonl", tmp_path) == ROWS[:1]
    assert fields("memory://bucket/*", tmp_path) == ROWS
    assert fields("memory://bucket", tmp_path) == ROWS
    (tmp_path / "rows.jsonl").write_bytes(lines())
    assert fields(f"file://{tmp_path}/rows.jsonl", Path("/elsewhere")) == ROWS
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    memory.pipe("/bucket2/rows.parquet", (tmp_path / "rows.parquet").read_bytes())
    assert fields("memory://bucket2/rows.parquet", tmp_path) == ROWS


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("missing.jsonl", "cannot be read: No such file"),
        ("missing/*.jsonl", "there is no data file"),
        ("empty", "there is no data file"),
        ("rows.xlsx", "no known format: the name ends with .xlsx"),
        ("memory://nowhere/rows.jsonl", "cannot be read"),
        ("memory://nowhere/*.jsonl", "there is no data file"),
        ("s4://bucket/rows.jsonl", "cannot be read"),
        ("bundled:home_requests/test", "no such data set ships"),
    ],
)
def test_what_cannot_be_read_is_an_error(tmp_path, source, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(InvalidData, match=says) as caught:
        found(source, tmp_path)
    assert caught.value.exit_code is ExitCode.DATA
    assert caught.value.hint


def test_a_data_set_of_the_hub_goes_through_datasets(tmp_path, monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = found("hub:org/name:en@abc", tmp_path, split="test")
    assert [fields_of(row) for row in rows] == ROWS
    assert str(rows[1].place) == "hub:org/name:en@abc:2"
    assert asked == [
        (("org/name", "en"), {"split": "test", "revision": "abc", "streaming": False})
    ]
    hub = SourceSpec(source="hub:org/name")
    assert fingerprint(hub, tmp_path) == fingerprint(hub, tmp_path)
    assert asked[-1] == (
        ("org/name", None),
        {"split": "train", "revision": None, "streaming": False},
    )


def test_a_data_set_that_the_hub_does_not_give_is_an_error(tmp_path, monkeypatch):
    def load_dataset(*args, **kwargs):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'org/name' doesn't exist")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InvalidData, match="split 'train' cannot be loaded: Dataset 'org/name'"):
        found("hub:org/name", tmp_path)


def test_the_fingerprint_is_of_the_content(tmp_path):
    def of(content: bytes, name="rows.jsonl") -> str:
        (tmp_path / name).write_bytes(content)
        return fingerprint(SourceSpec(source=name), tmp_path)

    assert of(b"{}") == of(b"{}") == of(b"{}", "other.jsonl")
    assert of(b"{}") != of(b"[]")
    assert of(b"{}") != of(b"{}", "rows.txt")
    memory = fsspec.filesystem("memory")
    memory.pipe("/store/rows.jsonl", b"{}")
    remote = SourceSpec(source="memory://store/rows.jsonl")
    first = fingerprint(remote, tmp_path)
    memory.pipe("/store/rows.jsonl", b"[1]")
    assert fingerprint(remote, tmp_path) != first


GOOD = b'{"text": "a"}\n'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"text": [\n', "not JSON"),
        (b'{"text": "\xff"}\n', "not UTF-8: byte 0xff at offset 10"),
        (b"[" * 100_000 + b"\n", "nested too deep"),
        (b'{"n": ' + b"1" * 5000 + b"}\n", "number too long"),
        (b"[1]\n", "a list where an object belongs"),
        (b"x" * (MAX_LINE_BYTES + 1) + b"\n", f"longer than {MAX_LINE_BYTES} bytes"),
    ],
)
def test_a_bad_line_is_a_fault_and_the_next_one_is_read(tmp_path, line, says):
    (tmp_path / "rows.jsonl").write_bytes(GOOD + line + GOOD)
    first, bad, last = found("rows.jsonl", tmp_path)
    assert isinstance(bad, Fault)
    assert says in str(bad.problem)
    assert (bad.place.line, last.place.line) == (2, 3)
    assert fields_of(first) == fields_of(last)


@pytest.mark.parametrize(
    ("name", "content", "says", "line"),
    [
        ("rows.json", b'[{"a": 1},\n {"a": }]', "no complete JSON value.*Expecting value", 2),
        ("rows.json", b'[{"a": 1},\n {"a": "' + b"x" * 2_000_000, "within 1000000 bytes", 2),
        ("rows.json", b'[\n\n"\xe9"]', "not UTF-8: byte 0xe9", 3),
        ("rows.json", b"[" + b'{"a":' * 100_000, "nested too deep", 1),
        ("rows.csv", b'a,b\n1,2\n3,"x" y\n', "not CSV", 3),
        ("rows.csv", b"a,b\n1,\xff\n", "not UTF-8: byte 0xff", 2),
        ("rows.csv", b"a,a\n1,2\n", "must name the columns, each once", 1),
        ("rows.csv", b'a,b\n1,"' + b"x\n" * 600_000, "not CSV: field larger", 2),
        ("rows.parquet", b"PAR1nonsense", "cannot be read beyond row 0", None),
        ("rows.arrow", b"nonsense", "cannot be read beyond row 0", None),
        ("rows.jsonl.gz", b"nonsense", "compressed file is damaged", None),
        (
            "rows.jsonl.gz",
            gzip.compress(GOOD * 99, mtime=0)[:-12],
            "compressed file is damaged",
            None,
        ),
        ("rows.jsonl.xz", b"nonsense", "compressed file is damaged", None),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, content, says, line):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidData, match=says) as caught:
        found(name, tmp_path)
    assert caught.value.line == line
    assert caught.value.file == str(tmp_path / name)
    assert caught.value.hint


def test_a_row_of_another_width_is_a_fault(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2,3\n\n4,5\n")
    bad, good = found("rows.csv", tmp_path)
    assert isinstance(bad, Fault)
    assert "3 fields where the first line names 2 columns" in str(bad.problem)
    assert (fields_of(good), good.place.line) == ({"a": "4", "b": "5"}, 4)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt", "rows.csv", "rows.json"])
def test_a_giant_value_is_read_in_bounded_memory(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.write(b'[{"a": "' if name == "rows.json" else b"")
        file.write(b"x" * 40_000_000)
    tracemalloc.start()
    try:
        assert isinstance(found(name, tmp_path)[0], Fault)
    except InvalidData as error:
        assert str(MAX_LINE_BYTES) in error.message
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * MAX_LINE_BYTES


def test_characters_may_lie_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("raylora.jobs.data.json_rows.BLOCK_BYTES", 7)
    rows = [{"text": "\xe9\u20ac\U0001f600" * 5, "n": i} for i in range(5)]
    (tmp_path / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert fields("rows.json", tmp_path) == rows


def test_bundled_files_ship(tmp_path):
    (file,) = locate(SourceSpec(source="bundled:home_requests/train"), tmp_path)
    assert Path(file).is_file()
