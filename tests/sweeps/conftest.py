"""Tiny trials with orders from a script (scripted.py)."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from raylora.sweeps.orders import Begin

PROGRAM = Path(__file__).with_name("scripted.py")


@pytest.fixture(scope="session")
def scripted() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scripted", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scripted"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_trial(scripted: ModuleType, tiny_base: Path, tmp_path: Path) -> Callable[..., Begin]:
    """A trial by its name; keys of lora and training, or sections as a whole."""
    held_out = scripted.write_rows(tmp_path / "rows.jsonl")

    def make(
        name: str, metric: str = "loss", rank: int = 4, rows: Any = held_out, **training: Any
    ) -> Begin:
        sections = training.pop("sections", {})
        lora = {"r": rank, **sections.pop("lora", {})}
        spec = scripted.spec_of(
            tiny_base, rows, held_out, lora=lora, training=training, **sections
        )
        return scripted.begin(tmp_path, name, spec, metric)

    return make
