"""Data read as training goes: the same rows at the same step, wherever reading starts."""

import json
from collections import Counter
from pathlib import Path

import datasets
import pytest
import torch

from raylora.config.data_spec import DataSpec
from raylora.config.training_spec import TrainingSpec
from raylora.errors import InvalidData
from raylora.jobs.data import row_stream
from raylora.jobs.data.conversation import Conversation
from raylora.jobs.data.examples import IGNORED
from raylora.jobs.data.records import Fault
from raylora.jobs.data.row_stream import RowStream
from raylora.jobs.data.rows import PlacedRow
from raylora.jobs.data.streaming import StreamedBatches


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(row_stream, "WINDOW", 10)
    monkeypatch.setattr(row_stream, "DRAWN", 16)


@pytest.fixture
def write(tmp_path):
    def lines(count: int, name="rows.jsonl", prefix="q", **more) -> Path:
        rows = [{"prompt": f"{prefix}{i}", "completion": f"a{i}", **more} for i in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return lines


def spec(**fields) -> DataSpec:
    given = {"train": "rows.jsonl", "validation": None, "ingest": "streaming", **fields}
    return DataSpec.model_validate(given)


def taken(stream: RowStream, start: int, count: int) -> list[str]:
    return [question(row) for row in stream.take(start, count)]


def question(row: PlacedRow | Fault) -> str:
    assert isinstance(row, PlacedRow) and isinstance(row.content, Conversation)
    return row.content.messages[0]["content"]


def batches(tokenizer, base, rank=0, workers=1, data=None, **fields) -> StreamedBatches:
    given = {"global_batch_size": 6, "micro_batch_size": 2, "max_steps": 30, **fields}
    training = TrainingSpec.model_validate(given)
    return StreamedBatches(data or spec(), training, tokenizer, base, rank, workers)


def answers(tokenizer, micro_batches) -> Counter:
    found = Counter()
    for batch in micro_batches:
        for part in batch["labels"][0].split(batch["lengths"].tolist()):
            found[tokenizer.decode(part[part != IGNORED])] += 1
    return found


def test_each_pass_takes_every_row_once_in_another_order(write):
    stream = RowStream(spec(), write(25), seed=0)
    first, second = taken(stream, 0, 25), taken(stream, 25, 25)
    assert sorted(first) == sorted(second) == sorted(f"q{i}" for i in range(25))
    assert first != second
    assert sorted(first[:10]) == sorted(f"q{i}" for i in range(10))
    assert first[:10] != [f"q{i}" for i in range(10)]


@pytest.mark.parametrize("start", [0, 3, 9, 10, 25, 31, 77])
def test_the_stream_can_begin_anywhere(write, start):
    write(25)
    base = write(7, name="more.jsonl", prefix="m")
    data = spec(mixture=[{"source": "more.jsonl", "weight": 0.5}])
    whole = taken(RowStream(data, base, seed=3), 0, 100)
    assert taken(RowStream(data, base, seed=3), start, 20) == whole[start : start + 20]
    stream = RowStream(data, base, seed=3)
    taken(stream, 50, 10)
    assert taken(stream, start, 20) == whole[start : start + 20]
    assert taken(RowStream(data, base, seed=4), 0, 100) != whole


def test_sources_are_drawn_by_weight(write):
    write(25)
    base = write(7, name="more.jsonl", prefix="m")
    data = spec(mixture=[{"source": "more.jsonl", "weight": 3.0}])
    rows = taken(RowStream(data, base, seed=0), 0, 800)
    assert 0.7 < sum(row.startswith("m") for row in rows) / 800 < 0.8


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_the_rows_of_one(tokenizer, write, workers):
    base = write(25)
    alone = batches(tokenizer, base)
    team = [batches(tokenizer, base, rank, workers) for rank in range(workers)]
    for step in range(6):
        parts = [answers(tokenizer, member.step(step, 2)) for member in team]
        assert [part.total() for part in parts] == [6 // workers] * workers
        assert sum(parts, Counter()) == answers(tokenizer, alone.step(step, 6))
        assert {one.supervised_weight(step) for one in team} == {alone.supervised_weight(step)}


def test_a_step_is_the_same_after_a_restart(tokenizer, write):
    base = write(25)
    going = batches(tokenizer, base)
    last = [going.step(step, 2) for step in range(9)][-1]
    again = batches(tokenizer, base).step(8, 2)
    assert len(again) == len(last) == 3
    for one, other in zip(again, last, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert answers(tokenizer, going.step(3, 6)) == answers(
        tokenizer, batches(tokenizer, base).step(3, 6)
    )


def test_a_step_has_the_weight_of_its_labels(tokenizer, write):
    streamed = batches(tokenizer, write(25))
    labels = [batch["labels"] for batch in streamed.step(2, 2)]
    assert streamed.supervised_weight(2) == sum(int((x != IGNORED).sum()) for x in labels)
    assert streamed.total_steps == 30


def test_bad_rows_are_an_error_or_counted(tokenizer, write):
    base = write(25)
    with (base / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write("nope\n")
    streamed = batches(tokenizer, base)
    with pytest.raises(InvalidData, match=r"rows.jsonl:26: not JSON"):
        for step in range(5):
            streamed.step(step, 2)
    skipping = batches(tokenizer, base, data=spec(bad_rows="skip"))
    sizes = [answers(tokenizer, skipping.step(step, 2)).total() for step in range(5)]
    assert sorted(sizes) == [5, 5, 6, 6, 6] or sorted(sizes) == [5, 6, 6, 6, 6]
    report = skipping.report()
    assert (report.rows, report.skipped, report.examples) == (30, 30 - sum(sizes), sum(sizes))
    assert "rows.jsonl:26" in report.problems[0]


def test_a_step_without_a_row_is_an_error(tokenizer, write):
    base = write(9, completion="x" * 600)
    streamed = batches(tokenizer, base, data=spec(truncation="drop"))
    with pytest.raises(InvalidData, match="none of the 6 rows of step 0 can be used: .* 6 too lo"):
        streamed.supervised_weight(0)


@pytest.mark.parametrize("content", ["", "nope\n"])
def test_a_source_without_rows_is_an_error_at_the_start(tokenizer, tmp_path, content):
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(InvalidData, match=r"rows.jsonl: (no rows|none of its 1 rows)"):
        batches(tokenizer, tmp_path)


def test_the_digest_tells_data_and_plans_apart(tokenizer, write):
    same = batches(tokenizer, write(25)).digest
    base = write(25)
    assert batches(tokenizer, base, rank=1, workers=2, learning_rate=0.1).digest == same
    assert batches(tokenizer, base, seed=1).digest != same
    assert batches(tokenizer, base, global_batch_size=4).digest != same
    assert batches(tokenizer, base, data=spec(supervise="all")).digest != same
    assert batches(tokenizer, write(26)).digest != same


def test_the_hub_is_streamed_without_a_copy(tokenizer, tmp_path, monkeypatch):
    rows = [{"text": f"text {i}"} for i in range(12)]
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append(kwargs["streaming"])
        return datasets.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    streamed = batches(tokenizer, tmp_path, data=spec(train="hub:org/name"))
    assert answers(tokenizer, streamed.step(0, 6)).total() == 6
    assert set(asked) == {True}
