"""The notebook runs from its first cell to its last, on the suite's cluster and the tiny model."""

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from raylora.cluster.connect import Cluster

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "train.ipynb"


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
        tree = ast.parse(source(cell))
        for node in ast.walk(tree):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef)
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


@pytest.mark.ray
def test_it_trains_and_asks(
    cells: list[dict[str, Any]],
    local_cluster: Cluster,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {
        "messages": [
            {"role": "user", "content": "on"},
            {"role": "assistant", "content": '{"a":1}'},
        ]
    }
    rows = "".join(json.dumps(row | {"id": number}) + "\n" for number in range(4))
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    settings = {
        "config": "lora",
        "question": "on",
        "changes": [
            "name=notebook",
            *("model.source=path", f"model.id={tiny_base}", "model.name=tiny"),
            *("model.dtype=fp32", "model.max_length=512"),
            *("data.train=rows.jsonl", "data.validation=rows.jsonl", "data.system_prompt=null"),
            *("training.max_steps=4", "training.global_batch_size=4"),
            *("workers.num_workers=1", "evaluation.max_new_tokens=4"),
        ],
    }
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile(source(cell), str(NOTEBOOK), "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            assert settings.keys() <= names.keys()
            names |= settings
    assert names["outcome"].progress.result.adapter == "notebook@1"
    assert [step["step"] for step in names["steps"]] == [1, 2, 3, 4]
    assert len(names["answers"]) == 2
    assert "rows.jsonl" in capsys.readouterr().out
