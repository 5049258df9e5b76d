"""What counts as the same adapter, and what is said where it is another."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from raylora.jobs.reproduction import TOLERANCE, compare
from raylora.lora import manifest
from raylora.tracking.adapters.lineage import Lineage

WEIGHTS = "adapter_model.safetensors"
METRICS = {"final_loss": 0.25, "heldout_exact_match": 0.5, "heldout_base_exact_match": 0.0}


def facts(workers: int = 1, **changes: Any) -> dict[str, Any]:
    spec = {"model": {"id": "m"}, "lora": {"r": 4}, "training": {"seed": 0}}
    spec["workers"] = {"num_workers": workers, "gpus_per_worker": 0}
    machine = {"packages": {"torch": "2"}, "hardware": {"cpu": "x"}}
    return {"spec": spec, "data": {"sha256": "rows"}, **machine, **changes}


def adapter(folder: Path, said: dict[str, Any], shift: float = 0.0) -> Path:
    folder.mkdir()
    save_file({"a": torch.ones(3) + shift}, folder / WEIGHTS)
    manifest.write(folder, said)
    return folder


def registered(said: dict[str, Any], metrics: dict[str, float] = METRICS) -> Lineage:
    return Lineage("home@7", "run", "mlflow", metrics, said)


def test_the_same_bytes_and_metrics_are_a_reproduction(tmp_path: Path) -> None:
    a, b = adapter(tmp_path / "a", facts()), adapter(tmp_path / "b", facts())
    found = compare(registered(facts()), a, b, METRICS)
    assert found.reproduced and found.same_bits and found.bits_expected
    assert [c.metric for c in found.metrics] == ["final_loss", "heldout_exact_match"]
    assert json.loads(found.to_json())["reproduced"] is True
    assert any("the same bits" in line for line in found.lines())


def test_one_cpu_worker_on_the_same_machine_owes_the_same_bits(tmp_path: Path) -> None:
    a, b = adapter(tmp_path / "a", facts()), adapter(tmp_path / "b", facts(), shift=1e-6)
    found = compare(registered(facts()), a, b, METRICS)
    assert not found.reproduced and "the weights differ by up to" in found.faults[0]
    assert found.largest_difference == pytest.approx(1e-6, rel=0.1)


@pytest.mark.parametrize(
    "theirs", [facts(2), facts(hardware={"cpu": "y"}), facts(packages={"torch": "1"})]
)
def test_elsewhere_the_metrics_decide(tmp_path: Path, theirs: dict[str, Any]) -> None:
    a = adapter(tmp_path / "a", theirs)
    b = adapter(tmp_path / "b", facts(theirs["spec"]["workers"]["num_workers"]), shift=1e-6)
    found = compare(registered(theirs), a, b, METRICS)
    assert found.reproduced and not found.same_bits and not found.bits_expected
    off = METRICS | {"heldout_exact_match": 0.5 + 2 * TOLERANCE}
    assert "heldout_exact_match was 0.5" in compare(registered(theirs), a, b, off).faults[0]


def test_a_missing_metric_is_no_zero(tmp_path: Path) -> None:
    a, b = adapter(tmp_path / "a", facts()), adapter(tmp_path / "b", facts())
    found = compare(registered(facts(), {}), a, b, {"final_loss": 0.0})
    assert found.faults == ["final_loss was missing and is 0"]


def test_other_rows_and_other_shapes_are_named(tmp_path: Path) -> None:
    a = adapter(tmp_path / "a", facts())
    b = adapter(tmp_path / "b", facts(data={"sha256": "others"}))
    tensors = load_file(b / WEIGHTS)
    save_file({"a": tensors["a"][:2].clone()}, b / WEIGHTS)
    found = compare(registered(facts()), a, b, METRICS)
    assert "training data" in found.faults[0]
    assert found.largest_difference == float("inf")
