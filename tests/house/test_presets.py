"""Every YAML file in configs/ composes into a valid spec."""

from pathlib import Path

import pytest

from raylora.config.compose import load_evaluate, load_serve, load_sweep, load_train
from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.serve_spec import ServeSpec
from raylora.config.sweep_spec import SweepSpec
from raylora.config.train_spec import TrainSpec

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml"))
FILLED_IN = {
    "model/hub": ["model.id=org/model", "model.name=base"],
    "model/local": ["model.id=/models/base", "model.name=base"],
    "data/chat": ["data.train=rows.jsonl"],
    "data/code": ["data.train=rows.jsonl"],
    "data/domain": ["data.train=rows.jsonl"],
    "data/instruction": ["data.train=rows.jsonl"],
}
"""What a user has to add: these leave it open on purpose."""


def test_there_are_presets() -> None:
    """A glob that finds nothing would pass all of the below."""
    assert {path.parts[0] for path in FILES} >= {"train", "serve", "model", "data", "experiment"}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_composes(file: Path) -> None:
    group, name = file.parts[0], file.with_suffix("").as_posix()
    if group == "serve":
        assert isinstance(load_serve(file.stem).spec, ServeSpec)
    elif group == "evaluate":
        assert isinstance(load_evaluate(file.stem).spec, EvaluateSpec)
    elif group == "sweep":
        assert isinstance(load_sweep(file.stem).spec, SweepSpec)
    elif group == "train":
        assert isinstance(load_train(file.stem).spec, TrainSpec)
    else:
        chosen = f"+{group}" if group == "experiment" else group
        overrides = [f"{chosen}={file.stem}", *FILLED_IN.get(name, [])]
        # Four workers are more than the quickstart's small batch feeds, and some adapters start
        # from weights in full precision.
        preset = "lora" if group in ("profile", "lora") else "quickstart"
        assert isinstance(load_train(preset, overrides).spec, TrainSpec)
