from collections import Counter
from pathlib import Path

import pytest
from benchmarks.bars.bench_data import Banking77, Question, banking77


def test_few_questions_are_the_same_for_the_same_seed():
    train = [Question(f"text {i}", f"intent {i % 3}") for i in range(30)]
    data = Banking77(train, [])
    few = data.few(4)
    assert Counter(question.intent for question in few) == {f"intent {i}": 4 for i in range(3)}
    assert few == data.few(4) != data.few(4, seed=1)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAYLORA_BENCH_DATA", str(tmp_path))
    assert banking77() is None


def test_the_csv_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "banking77"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / f"{name}.csv").write_text('text,category\n"Where, please?",card\n')
    monkeypatch.setenv("RAYLORA_BENCH_DATA", str(tmp_path))
    data = banking77()
    assert data is not None
    assert data.test == [Question("Where, please?", "card")]
