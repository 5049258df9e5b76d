"""Notebooks of examples/ as tests read and run them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def code_cells(path: Path) -> list[dict[str, Any]]:
    """The cells with code of a notebook."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell: Mapping[str, Any]) -> str:
    """What a cell says."""
    return "".join(cell["source"])


def run(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run all cells, with settings in place of those of the cell that is tagged `parameters`."""
    names: dict[str, Any] = {}
    for cell in code_cells(path):
        exec(compile(source(cell), str(path), "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            assert settings.keys() <= names.keys()
            names |= settings
    return names
