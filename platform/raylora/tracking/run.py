"""A run while it is written to: parameters, metrics, artifacts, and how it ends."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Protocol

RUN_ID_TAG = "raylora.run_id"
ADAPTER_TAG = "raylora.adapter"
CHANGED_TAG = "raylora.changed."
"""Before the key of a parameter that had another value when the run was continued."""
SYSTEM_METRICS = "system/"
"""MLflow's prefix."""


class RunStatus(StrEnum):
    """How a run stands; MLflow's words."""

    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @property
    def terminal(self) -> bool:
        """Whether the run is over."""
        return self in (RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED)


class Run(Protocol):
    """A run that is being written to."""

    @property
    def run_id(self) -> str:
        """The id that raylora gave it."""
        ...

    @property
    def mlflow_run_id(self) -> str:
        """MLflow's id; empty where nothing is tracked, or the server has not been reached yet."""
        ...

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log values of a step. A step at or before a key's last is dropped."""
        ...

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log nested parameters under dotted keys; a changed one keeps its first value."""
        ...

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, over earlier ones of the same key."""
        ...

    def log_dict(self, content: Mapping[str, object], artifact_file: str) -> None:
        """Store a mapping as artifact; the name's .json or .yaml decides the format."""
        ...

    def log_artifacts(self, directory: Path, artifact_path: str) -> None:
        """Upload the files of a directory."""
        ...

    def log_dataset(self, name: str, source: str, digest: str, rows: int, context: str) -> None:
        """Record a data set as input; context says what for, such as training."""
        ...

    def start_system_metrics(self, node: str = "") -> None:
        """Sample CPU, memory, disk, network and GPUs; node names the machine (its host name)."""
        ...

    def stop_system_metrics(self) -> None:
        """End the sampling."""
        ...

    def flush(self) -> None:
        """Make sure that a power failure does not take what was logged; call it at checkpoints."""
        ...

    def close(self) -> None:
        """Flush and let go, leaving the status alone: what a worker does at its end."""
        ...

    def finish(self, status: RunStatus) -> None:
        """Close, with the final status."""
        ...


class NullRun:
    """A Run that records nothing: workers other than the first, and tests."""

    run_id = ""
    mlflow_run_id = ""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None: ...
    def log_params(self, params: Mapping[str, object]) -> None: ...
    def set_tags(self, tags: Mapping[str, object]) -> None: ...
    def log_dict(self, content: Mapping[str, object], artifact_file: str) -> None: ...
    def log_artifacts(self, directory: Path, artifact_path: str) -> None: ...
    def log_dataset(
        self, name: str, source: str, digest: str, rows: int, context: str
    ) -> None: ...
    def start_system_metrics(self, node: str = "") -> None: ...
    def stop_system_metrics(self) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    def finish(self, status: RunStatus) -> None: ...
