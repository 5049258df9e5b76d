"""What a plan is made from: bytes from the base's files, tokens from the rows."""

from pathlib import Path
from typing import Any

import pytest
from tests.sweeps import scripted

from raylora.config.footprint import measure
from raylora.config.train_spec import TrainSpec
from raylora.jobs.data.survey import Surveyed, survey
from raylora.sweeps.estimates import BYTES_OF_A_TOKEN, PROCESS_BYTES, known_of


@pytest.fixture
def make_spec(tiny_base: Path, tmp_path: Path) -> Any:
    rows = scripted.write_rows(tmp_path / "rows.jsonl")
    return lambda **sections: scripted.spec_of(tiny_base, rows, rows, **sections)


def surveyed(rows: int, size: int) -> list[Surveyed]:
    return [
        Surveyed("a", "a.jsonl", "", rows, size, "training"),
        Surveyed("b", "b.jsonl", "", 1, 10**9, "validation"),
    ]


def test_memory_is_that_of_the_largest_trial(make_spec: Any, tiny_base: Path):
    trials: list[TrainSpec] = [make_spec(lora={"r": rank}) for rank in (2, 64)]
    small, large = (measure(trial, tiny_base) for trial in trials)
    known = known_of(trials, surveyed(10, 10)).memory
    assert known is not None
    assert known.shared == PROCESS_BYTES + large.weights + large.activations
    assert known.trial == large.adapter + large.optimizer > 20 * (small.adapter + small.optimizer)
    assert known.of(4) - known.of(2) == 2 * known.trial


def test_a_base_that_is_not_here_yet_has_no_known_size(make_spec: Any):
    trial = make_spec(model={"source": "path", "id": "/nowhere"})
    assert known_of([trial], surveyed(10, 10)).memory is None


def test_tokens_of_a_pass_follow_from_the_rows_and_how_many_a_pass_takes(make_spec: Any):
    data = surveyed(rows=10, size=10 * 30 * BYTES_OF_A_TOKEN)
    assert known_of([make_spec()], data).tokens == 2 * 30
    one_row = make_spec(training={"global_batch_size": 1})
    assert known_of([one_row], data).tokens == 30
    assert known_of([one_row, make_spec()], data).tokens == 2 * 30
    rows = {"train": "rows.jsonl"}
    assert known_of([make_spec(data={**rows, "max_length": 16})], data).tokens == 2 * 16
    packed = make_spec(data={**rows, "packing": "best_fit", "max_length": 128, "pack_length": 256})
    assert known_of([packed], data).tokens == 2 * 256


def test_rows_are_measured_as_they_are_surveyed(make_spec: Any, tmp_path: Path):
    spec: TrainSpec = make_spec()
    found = survey(spec.data, tmp_path)
    written = Path(spec.data.train).read_text(encoding="utf-8")
    assert 0 < sum(part.size for part in found if part.context == "training") <= len(written)
