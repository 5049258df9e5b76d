"""Runs that do without the tracking server: what is logged is written beside the run first.

The driver starts a run (`tracked.start`), and a thread of its process sends what the run's spool
holds, a worker's records too. Workers `attach` to the folder alone: they know of no server.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from raylora.tracking.params import flatten, text
from raylora.tracking.run import RunStatus
from raylora.tracking.spooling.records import (
    Artifacts,
    Content,
    DatasetUsed,
    Metrics,
    Params,
    Record,
    Status,
    Tags,
)
from raylora.tracking.spooling.spool import Role, SpoolWriter
from raylora.tracking.system_metrics import SystemMetrics

BIRTH = "run.json"
"""In a spool's folder: what the run was begun as."""


@dataclass(frozen=True)
class Birth:
    """What a run was begun as."""

    uri: str
    """Of the store, without passwords."""
    experiment: str
    run_id: str
    name: str
    parent: str
    """raylora's id of the run it is shown below, or nothing."""
    began_ms: int


class SpooledRun:
    """A Run of which all is written to its spool, and nobody is waited for."""

    mlflow_run_id = ""

    def __init__(self, folder: Path, run_id: str, began_ms: int, role: Role) -> None:
        self.run_id = run_id
        self._root = folder.parent
        self._began_ms = began_ms
        self._spool = SpoolWriter(folder, role)
        self._system: SystemMetrics | None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        values = {key: float(value) for key, value in metrics.items()}
        self._append(Metrics(values, step, now_ms()))

    def log_params(self, params: Mapping[str, object]) -> None:
        self._append(Params(flatten(params)))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self._append(Tags({key: text(value) for key, value in tags.items()}))

    def log_dict(self, content: Mapping[str, object], artifact_file: str) -> None:
        self._append(Content(content, artifact_file))

    def log_artifacts(self, directory: Path, artifact_path: str) -> None:
        self._append(Artifacts(self._relative(directory), artifact_path))

    def log_dataset(self, name: str, source: str, digest: str, rows: int, context: str) -> None:
        self._append(DatasetUsed(name, source, digest, rows, context))

    def start_system_metrics(self, node: str = "") -> None:
        self._system = SystemMetrics(self.log_metrics, self._began_ms / 1000, node)
        self._system.start()

    def stop_system_metrics(self) -> None:
        if self._system is not None:
            self._system.stop()
            self._system = None

    def flush(self) -> None:
        self._spool.sync()

    def close(self) -> None:
        self.stop_system_metrics()
        self._spool.close()

    def finish(self, status: RunStatus) -> None:
        self._append(Status(status, now_ms()))
        self.close()

    def _append(self, record: Record) -> None:
        self._spool.append(record)

    def _relative(self, directory: Path) -> str:
        inside = directory.is_relative_to(self._root)
        return str(directory.relative_to(self._root) if inside else directory.absolute())


def attach(folder: Path, run_id: str) -> SpooledRun:
    """Write to a run that another process began."""
    birth = read_birth(folder)
    return SpooledRun(folder, run_id, birth.began_ms if birth else now_ms(), Role.WORKER)


def read_birth(folder: Path) -> Birth | None:
    """What the run of a spool was begun as; None where there is no spool."""
    with suppress(FileNotFoundError, ValueError, TypeError):
        return Birth(**json.loads((folder / BIRTH).read_text(encoding="utf-8")))
    return None


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000
