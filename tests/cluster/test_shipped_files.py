"""Which of the files that a spec names travel with its job."""

from pathlib import Path
from typing import Any

from raylora.cluster.shipped_files import spec_files
from raylora.config.train_spec import TrainSpec


def spec_of(**values: Any) -> TrainSpec:
    return TrainSpec.model_validate(values)


def test_files_that_travel_are_the_local_ones(tmp_path: Path) -> None:
    def shipped(train: str, validation: str | None, *, is_local: bool = True) -> dict[str, Path]:
        spec = spec_of(data={"train": train, "validation": validation})
        return dict(spec_files(spec, tmp_path, is_local=is_local))

    assert shipped("bundled:home_requests/train", None) == {}
    assert shipped("file:///shared/rows.jsonl", "s3://bucket/rows.jsonl") == {}
    assert shipped("rows.jsonl", "/abs/rows.jsonl") == {
        "data.train": tmp_path / "rows.jsonl",
        "data.validation": Path("/abs/rows.jsonl"),
    }
    # An absolute path that is not here may well be one over there.
    assert shipped("rows.jsonl", "/abs/rows.jsonl", is_local=False) == {
        "data.train": tmp_path / "rows.jsonl"
    }


def test_all_that_the_data_names_travels(tmp_path: Path) -> None:
    spec = spec_of(
        data={
            "train": "hub:org/name",
            "mixture": [{"source": "s3://bucket/rows"}, {"source": "more/*.jsonl"}],
            "validation": "held",
            "chat_template": "mine.jinja",
        }
    )
    assert spec_files(spec, tmp_path) == {
        "data.mixture.1.source": tmp_path / "more/*.jsonl",
        "data.validation": tmp_path / "held",
        "data.chat_template": tmp_path / "mine.jinja",
    }
    far = spec_of(data={"train": f"{tmp_path}/*.jsonl", "validation": None})
    assert spec_files(far, Path("/base"), is_local=False) == {}
    (tmp_path / "a.jsonl").touch()
    assert list(spec_files(far, Path("/base"), is_local=False)) == ["data.train"]
