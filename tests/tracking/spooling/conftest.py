from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tracking.spooling.job import RUN

from raylora.errors import RayloraError
from raylora.tracking.spooling import courier as courier_module
from raylora.tracking.spooling import tracked
from raylora.tracking.spooling.tracked import TrackedRun, start

Begin = Callable[..., TrackedRun]


class Switch:
    """Whether the store lets itself be opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: RayloraError | None = None
        self._connect = tracked.connect
        monkeypatch.setattr(tracked, "connect", self.connect)

    def connect(self, uri: str, *, patient: bool = False):
        if self.error is not None:
            raise self.error
        return self._connect(uri, patient=patient)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Switch:
    monkeypatch.setattr(courier_module, "GATHER_SECONDS", 0.05)
    monkeypatch.setattr(courier_module, "LONGEST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(courier_module, "SILENT_SECONDS", 0.5)
    return Switch(monkeypatch)


@pytest.fixture
def outputs(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///")).parent


@pytest.fixture
def begin(uri: str, outputs: Path, store: Switch) -> Begin:
    def beginner(run_id: str = RUN, parent: str = "", **params: object) -> TrackedRun:
        folder = outputs / "experiments" / "tests" / "runs" / run_id / "tracking"
        tags = {"git": "abc"}
        return start(
            uri, "tests", run_id, "quickstart", folder, params=params, tags=tags, parent=parent
        )

    return beginner
