"""A store at raylora's own seam, which can be away, refuse, or be killed around a request."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from raylora.errors import RayloraError, Unreachable
from raylora.tracking.mlflow_run import Point
from raylora.tracking.run import RunStatus
from raylora.tracking.spooling.records import Registered, Registration


class Killed(BaseException):
    """The process that sends ends here."""


class FakeStore:
    """One run; takes requests as a whole or not at all, as MLflow does."""

    mlflow_run_id = "m1"

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.params: dict[str, object] = {}
        self.tags: dict[str, object] = {}
        self.files: list[str] = []
        self.datasets: list[str] = []
        self.statuses: list[RunStatus] = []
        self.versions: list[str] = []
        self.requests = 0
        self.away = False
        self.refused_keys: set[str] = set()
        self.kill_before: set[int] = set()
        """Numbers of requests that are not taken."""
        self.kill_after: set[int] = set()
        """Those that are taken, and nobody hears of it."""

    def open(self, known: str = "") -> "FakeStore":
        """As find_or_make does."""
        if self.away:
            raise Unreachable("away")
        return self

    def steps(self, key: str) -> list[int]:
        return [point.step for point in self.points if point.key == key]

    def send(self, points: Sequence[Point]) -> None:
        with _Request(self):
            if self.refused_keys & {point.key for point in points}:
                raise RayloraError("bad key")
            last = {point.key: point.step for point in self.points}
            self.points += [p for p in points if p.step > last.get(p.key, -1)]

    def log_params(self, params: Mapping[str, object]) -> None:
        with _Request(self):
            self.params |= params

    def set_tags(self, tags: Mapping[str, object]) -> None:
        with _Request(self):
            self.tags |= tags

    def log_dict(self, content: Mapping[str, object], artifact_file: str) -> None:
        with _Request(self):
            self.files.append(artifact_file)

    def log_artifacts(self, directory: Path, artifact_path: str) -> None:
        with _Request(self):
            self.files += [f"{artifact_path}/{path.name}" for path in directory.iterdir()]

    def log_dataset(self, name: str, source: str, digest: str, rows: int, context: str) -> None:
        with _Request(self):
            self.datasets.append(name)

    def register(self, wanted: Registration, directory: Path) -> Registered:
        with _Request(self):
            if "refuse" in wanted.name:
                raise RayloraError("not this name")
            if not self.versions:
                self.versions.append(f"{wanted.name}@1")
            return Registered(self.versions[0], ("champion",))

    def stand(self, status: RunStatus, time_ms: int | None = None) -> None:
        with _Request(self):
            self.statuses.append(status)

    def discard_doubles(self) -> None:
        """There is one run."""


class _Request:
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    def __enter__(self) -> None:
        if self._store.away:
            raise Unreachable("away")
        self._store.requests += 1
        if self._store.requests in self._store.kill_before:
            raise Killed

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None and self._store.requests in self._store.kill_after:
            raise Killed
