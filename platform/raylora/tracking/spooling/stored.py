"""What a spool is sent to: the seam between the order of sending and MLflow."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from raylora.tracking.mlflow_run import Point
from raylora.tracking.run import RunStatus
from raylora.tracking.spooling.records import Registered, Registration


class Stored(Protocol):
    """The run in the store."""

    @property
    def mlflow_run_id(self) -> str:
        """MLflow's id."""
        ...

    def send(self, points: Sequence[Point]) -> None: ...
    def log_params(self, params: Mapping[str, object]) -> None: ...
    def set_tags(self, tags: Mapping[str, object]) -> None: ...
    def log_dict(self, content: Mapping[str, object], artifact_file: str) -> None: ...
    def log_artifacts(self, directory: Path, artifact_path: str) -> None: ...
    def log_dataset(
        self, name: str, source: str, digest: str, rows: int, context: str
    ) -> None: ...
    def stand(self, status: RunStatus, time_ms: int | None = None) -> None: ...
    def register(self, wanted: Registration, directory: Path) -> Registered:
        """Make it a version of its name."""
        ...

    def discard_doubles(self) -> None:
        """Leave one run of this training, where late answers made several."""
        ...


Open: TypeAlias = Callable[[str], Stored]
"""Finds the run by MLflow's id, where one is known, or by its own, or makes it.

Raises Unreachable, NotAuthorised."""
