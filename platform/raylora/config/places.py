"""Where things lie on disk. Pure paths: nothing here touches the disk."""

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


def home() -> Path:
    """State of the local cluster: RAYLORA_HOME, or ~/.raylora."""
    return _from_environment("RAYLORA_HOME", Path("~/.raylora"))


def cache() -> Path:
    """Converted base models and fetched adapters: RAYLORA_CACHE, or ~/.cache/raylora."""
    return _from_environment("RAYLORA_CACHE", Path("~/.cache/raylora"))


@dataclass(frozen=True)
class RunPlaces:
    """The folders of one run."""

    root: Path
    series: int = 0
    """Of its checkpoints: one that goes on from another run's begins a new series."""

    @property
    def artifacts(self) -> Path:
        """What the run made."""
        return self.root / "artifacts"

    @property
    def adapter(self) -> Path:
        """The finished adapter."""
        return self.artifacts / "adapter"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer used in training."""
        return self.artifacts / "tokenizer"

    @property
    def merged(self) -> Path:
        """The base with the adapter merged in, where that was asked for."""
        return self.artifacts / "merged"

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint."""
        return self.root / (f"checkpoints-{self.series}" if self.series else "checkpoints")

    @property
    def logs(self) -> Path:
        """TensorBoard events."""
        return self.root / "logs"

    @property
    def metadata(self) -> Path:
        """Resolved spec, lineage and results as JSON."""
        return self.root / "metadata"

    @property
    def tracking(self) -> Path:
        """What waits to be sent to the tracking server."""
        return self.root / "tracking"

    @property
    def working(self) -> tuple[Path, ...]:
        """The folders that have to be there when training begins."""
        return self.artifacts, self.checkpoints, self.logs, self.metadata


def run_dir(outputs: str | Path, experiment: str, run_id: str) -> RunPlaces:
    """The folders of a run below the outputs folder."""
    return RunPlaces(Path(outputs) / "experiments" / experiment / "runs" / run_id)


def new_run_id(now: datetime | None = None) -> str:
    """UTC time to the second and a random suffix, as in 20260101-120000-a1b2c3: sorts by time."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    return f"{moment:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def _from_environment(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().absolute()
