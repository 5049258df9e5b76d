"""The notebook runs from its first cell to its last, on the suite's cluster and the tiny model."""

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from raylora.cluster.connect import Cluster
from raylora.jobs.evaluate import predictions

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "score.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    """Its code cells."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_it_carries_no_results(cells: list[dict[str, Any]]) -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_it_only_calls_the_package(cells: list[dict[str, Any]]) -> None:
    """No function or class of its own, and each name that it imports is there."""
    for cell in cells:
        for node in ast.walk(ast.parse(source(cell))):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef)
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


@pytest.mark.ray
def test_it_scores_a_file(
    cells: list[dict[str, Any]],
    local_cluster: Cluster,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = '{"prompt":"on","completion":"yes"}\n{"prompt":"off","completion":"no"}\n'
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    model = {"source": "path", "id": str(tiny_base), "name": "tiny", "dtype": "fp32"}
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({"model": model, "subjects": ["base"]}), encoding="utf-8")
    settings = {
        "config": str(config),
        "changes": ["evaluation.max_new_tokens=4", "evaluation.metrics=[exact_match,loss]"],
        "file": "rows.jsonl",
    }
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile(source(cell), str(NOTEBOOK), "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            assert settings.keys() <= names.keys()
            names |= settings
    found = list(predictions.read(tmp_path / "rows.predictions.parquet"))
    assert found == names["results"]
    assert [result.reference for result in found] == ["yes", "no"]
    assert all(result.scores["loss"] for result in found)
    told = json.loads((tmp_path / "rows.metrics.json").read_text("utf-8"))
    assert [score["metric"] for score in told["scores"]] == ["exact_match", "loss"]
    assert "instead of 'yes'" in capsys.readouterr().out
