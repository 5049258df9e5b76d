import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

# Makes `benchmarks` importable.
import tests.benchmarks.conftest  # noqa: F401  # pyright: ignore[reportUnusedImport]

from raylora.tracking.run import Run
from raylora.tracking.runs import open_run
from raylora.tracking.store import connect


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path) -> str:
    """A SQLite store of this test's own, empty."""
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    shutil.copy(empty_store, outputs / "mlflow.db")
    return f"sqlite:///{outputs / 'mlflow.db'}"


Opener = Callable[..., Run]


@pytest.fixture
def start(uri: str) -> Opener:
    """Opens, or continues, a run in the store."""

    def opener(
        run_id: str = "20260101-120000-a1b2c3", experiment: str = "tests", **params: object
    ) -> Run:
        return open_run(uri, experiment, run_id, "quickstart", params=params, tags={})

    return opener


Maker = Callable[..., Path]


@pytest.fixture
def make_adapter(tmp_path: Path) -> Maker:
    """Writes a directory with the files of an adapter."""

    def maker(name: str = "adapter", weights: bytes = b"weights") -> Path:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "adapter_model.safetensors").write_bytes(weights)
        (directory / "adapter_config.json").write_text('{"r": 8}')
        (directory / "raylora.json").write_text("{}")
        return directory

    return maker


Stored = Callable[[Run, str], list[tuple[int, float]]]


@pytest.fixture
def stored(uri: str) -> Stored:
    """(step, value) of a metric as the store has them, by step."""

    def points(run: Run, key: str) -> list[tuple[int, float]]:
        history = connect(uri).get_metric_history(run.mlflow_run_id, key)
        return sorted((point.step, point.value) for point in history)

    return points
