"""What is written down about the local head, so that every later command finds it."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import psutil

from raylora.cluster import processes
from raylora.config.places import home


@dataclass(frozen=True)
class HeadPlaces:
    """Files of the local head under RAYLORA_HOME/head, a folder of mode 0700."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def log(self) -> Path:
        return self.root / "head.log"

    @property
    def warm_log(self) -> Path:
        return self.root / "warm.log"


@dataclass(frozen=True)
class HeadState:
    """One local head. Pids are reused, so the creation time belongs to its identity."""

    id: str
    pid: int
    create_time: float
    """Seconds since the epoch, as psutil gives it."""
    dashboard_url: str
    gcs_address: str
    ports: dict[str, int]
    token_path: str
    temp_dir: str
    log: str
    ready: bool = False
    """False from the start of the process until the cluster answers."""

    @property
    def process(self) -> psutil.Process | None:
        """The head's process, or None where it is gone."""
        return processes.find(self.pid, self.create_time)

    def made_ready(self) -> "HeadState":
        """The same head once it answers."""
        return replace(self, ready=True)


def places() -> HeadPlaces:
    """Return the places of this user's head; the folder is made if it is missing."""
    root = home() / "head"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return HeadPlaces(root)


def write(state: HeadState) -> None:
    """Replace the state file, atomically and with mode 0600."""
    path = places().state
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(state), file, indent=2)
    draft.replace(path)


def read() -> HeadState | None:
    """Return what was written last; None where nothing was, or nothing that can be read."""
    try:
        stored = json.loads(places().state.read_text(encoding="utf-8"))
        known = {field.name for field in fields(HeadState)}
        return HeadState(**{key: value for key, value in stored.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def forget() -> None:
    """Remove the state file and the token."""
    for path in (places().state, places().token):
        path.unlink(missing_ok=True)
