"""`raylora rerun` up to the job: which spec is submitted, and what cannot be trained again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raylora.cli import rerun
from raylora.cli.main import cli
from raylora.cluster import submission
from raylora.cluster.job_record import JobRecord
from raylora.config.train_spec import TrainSpec
from raylora.errors import Unreachable
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.runs import open_run


@dataclass
class Submitted:
    """What reached the cluster's door."""

    spec: TrainSpec
    given: dict[str, Any]


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[Submitted]:
    found: list[Submitted] = []

    def submit(client: object, cluster: object, spec: TrainSpec, **given: Any) -> None:
        found.append(Submitted(spec, given))
        raise Unreachable("far enough")

    monkeypatch.setattr(submission, "submit", submit)
    monkeypatch.setattr(rerun, "connect", lambda _: None)
    monkeypatch.setattr(rerun, "JobClient", lambda _: None)
    return found


@pytest.fixture
def outputs(tmp_path: Path) -> str:
    """home@1 with a lineage, and foreign@1 without."""
    folder = tmp_path / "out"
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    data = {"train": "files/ab-rows.jsonl", "validation": None}
    spec = TrainSpec.model_validate(
        {"outputs": "/gone", "data": data, "training": {"learning_rate": 3e-5}}
    )
    for name, said in {"home": {"spec": spec.model_dump(mode="json")}, "foreign": {}}.items():
        run = open_run(uri, "e", f"run-{name}", name, params={}, tags={})
        (files := tmp_path / name).mkdir()
        (files / "raylora.json").write_text(json.dumps({"lineage": said}))
        Registry(uri).register(name, run, files, tags={})
    return str(folder)


def raylora(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_the_spec_is_the_versions_own_in_this_store(
    outputs: str, submitted: list[Submitted]
) -> None:
    assert raylora("rerun", "home@1", "--outputs", outputs).exit_code == 3
    (asked,) = submitted
    assert asked.spec.training.learning_rate == 3e-5
    assert asked.spec.outputs == outputs
    assert (asked.given["program"], asked.given["config"]) == (submission.RERUN, "home@1")


def test_rows_are_where_the_job_left_them_or_where_one_says(
    outputs: str, submitted: list[Submitted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle" / "files").mkdir(parents=True)
    shipped = tmp_path / "bundle" / "files" / "ab-rows.jsonl"
    shipped.write_text("{}\n")

    def read(run_id: str) -> JobRecord | None:
        assert run_id == "run-home"
        return JobRecord(run_id, "home", "p", (), str(tmp_path / "bundle"), "", "")

    monkeypatch.setattr(rerun.job_record, "read", read)
    raylora("rerun", "home@1", "--outputs", outputs)
    raylora("rerun", "home@1", "data.train=/moved.jsonl", "--outputs", outputs)
    assert [asked.spec.data.train for asked in submitted] == [str(shipped), "/moved.jsonl"]


@pytest.mark.parametrize(
    ("ref", "said"), [("foreign@1", "has no spec"), ("hom@1", "home"), ("home@7", "home@1")]
)
def test_what_cannot_be_trained_again_is_exit_5(
    outputs: str, submitted: list[Submitted], ref: str, said: str
) -> None:
    result = raylora("rerun", ref, "--outputs", outputs)
    assert result.exit_code == 5
    assert said in result.stderr
    assert submitted == []
