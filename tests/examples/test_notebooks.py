"""What holds for every notebook."""

import ast
import importlib
from pathlib import Path

import pytest
from tests.examples.notebook import EXAMPLES, code_cells, source

NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each_notebook
def test_it_carries_no_results(path: Path) -> None:
    for cell in code_cells(path):
        assert cell["outputs"] == [] and cell["execution_count"] is None


@each_notebook
def test_it_only_calls_the_package(path: Path) -> None:
    """No function or class of its own, and each name that it imports is there."""
    for cell in code_cells(path):
        for node in ast.walk(ast.parse(source(cell))):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef)
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), node.module
