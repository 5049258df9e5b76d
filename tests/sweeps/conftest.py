"""Tiny trials with orders from a script (scripted.py)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sweeps import scripted

from raylora.sweeps.orders import Begin


@pytest.fixture
def make_trial(tiny_base: Path, tmp_path: Path) -> Callable[..., Begin]:
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
