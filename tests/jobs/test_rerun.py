"""The driver of a rerun, with training itself faked: what is asked before, and what is found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from raylora.config.places import run_dir
from raylora.config.train_spec import TrainSpec
from raylora.errors import InvalidData, JobFailed
from raylora.jobs import record, rerun
from raylora.jobs.assignment import ADAPTER, BASE, Assessment, Assignment
from raylora.jobs.data.survey import survey
from raylora.jobs.provenance import provenance
from raylora.jobs.train.outcome import Outcome
from raylora.lora import manifest
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.runs import RunStatus, get_run, open_run

LOSS, RIGHT = 0.25, 0.5


@pytest.fixture
def spec(tmp_path: Path) -> TrainSpec:
    rows = [{"prompt": "on", "completion": "1"}, {"prompt": "off", "completion": "0"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": str(tmp_path / "rows.jsonl"), "validation": None}
    fields = {"outputs": str(tmp_path / "out"), "data": data, "workers": {"num_workers": 1}}
    return TrainSpec.model_validate({"name": "r", **fields})


@pytest.fixture
def uri(spec: TrainSpec, empty_store: Path) -> str:
    Path(spec.outputs).mkdir()
    shutil.copy(empty_store, Path(spec.outputs) / "mlflow.db")
    return f"sqlite:///{spec.outputs}/mlflow.db"


def write_adapter(folder: Path, spec: TrainSpec, shift: float = 0.0) -> None:
    folder.mkdir(parents=True)
    save_file({"a": torch.ones(3) + shift}, folder / "adapter_model.safetensors")
    said = {"base": {"id": "b"}, "data": {"sha256": "tokens"}, **provenance(spec, "template")}
    manifest.write(folder, said)


@pytest.fixture
def version(spec: TrainSpec, uri: str, tmp_path: Path) -> str:
    """Registered, as by a job that ended well."""
    run = open_run(uri, "default", "run-1", "r", params={}, tags={})
    for part in survey(spec.data, tmp_path):
        run.log_dataset(part.name, part.source, part.digest, part.rows, part.context)
    run.log_metrics({"final_loss": LOSS, "heldout_exact_match": RIGHT})
    write_adapter(tmp_path / "registered", spec)
    registered = Registry(uri).register("r", run, tmp_path / "registered", tags={})
    run.finish(RunStatus.FINISHED)
    return str(registered)


@pytest.fixture
def trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Assignment]]:
    """Fake the training of an adapter so far from the first one; gives what was trained."""

    def fake(shift: float = 0.0, right: float = RIGHT) -> list[Assignment]:
        trained: list[Assignment] = []

        def train(assignment: Assignment) -> tuple[Outcome, Assessment]:
            trained.append(assignment)
            write_adapter(assignment.places.adapter, assignment.spec, shift)
            scores = {ADAPTER: {"exact_match": right}, BASE: {"exact_match": 0.0}}
            assessment = Assessment("rev", "tokens", "sha", 4, 0.0, scores)
            return Outcome(6, 0, LOSS, 6), assessment

        monkeypatch.setattr(rerun, "train", train)
        monkeypatch.setattr(rerun, "connect", lambda: None)
        monkeypatch.setattr(record, "origin_tags", lambda _: dict[str, str]())
        monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path / "cache"))
        return trained

    return fake


def report(spec: TrainSpec) -> dict[str, Any]:
    places = run_dir(spec.outputs, spec.tracking.experiment, "run-2")
    return json.loads((places.metadata / rerun.REPORT).read_text(encoding="utf-8"))


def test_the_same_is_a_run_of_its_own_and_registers_nothing(spec, uri, version, trains) -> None:
    trains()
    assert rerun.rerun(spec, "run-2", version).reproduced
    run = get_run(uri, "run-2")
    assert (run.summary.status, run.tags[rerun.RERUN_OF_TAG]) == ("FINISHED", "r@1")
    assert run.summary.metrics["heldout_exact_match"] == RIGHT
    assert rerun.REPORT in run.artifacts and report(spec)["same_bits"]
    assert Registry(uri).numbers("r") == [1]


def test_another_adapter_fails_the_job_and_the_run(spec, uri, version, trains) -> None:
    trains(shift=0.1, right=0.9)
    with pytest.raises(JobFailed, match=r"r@1 was not reproduced.*heldout_exact_match was 0.5"):
        rerun.rerun(spec, "run-2", version)
    assert get_run(uri, "run-2").summary.status == "FAILED"
    assert len(report(spec)["faults"]) == 2


def test_other_rows_are_refused_before_anything_is_trained(
    spec: TrainSpec, uri, version, trains, tmp_path: Path
) -> None:
    trained = trains()
    (tmp_path / "rows.jsonl").write_text('{"prompt": "on", "completion": "2"}\n')
    with pytest.raises(InvalidData, match="trained with other training rows"):
        rerun.rerun(spec, "run-2", version)
    assert trained == []
