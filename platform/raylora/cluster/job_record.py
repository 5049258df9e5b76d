"""What was submitted from here, so that a run can go on after its cluster is gone."""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from raylora.config.places import home


@dataclass(frozen=True)
class JobRecord:
    """How to start a run: the same program on the same bundle."""

    run_id: str
    name: str
    program: str
    args: tuple[str, ...]
    working_dir: str
    package: str
    outputs: str
    warm: bool = False
    """Whether its processes may be forks of a warm one."""
    tracking: str = ""
    """Address of its tracking server, without passwords; empty where the store is in outputs."""


def write(record: JobRecord) -> None:
    """Keep a record, mode 0600."""
    path = _path(record.run_id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(record), file, indent=2)


def read(run_id: str) -> JobRecord | None:
    """Return the record of a run, or None where this machine has none or its bundle is gone."""
    # The id comes from the command line and becomes a file name.
    if not re.fullmatch(r"[\w.-]+", run_id):
        return None
    try:
        stored = json.loads(_path(run_id).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    record = JobRecord(**(stored | {"args": tuple(stored["args"])}))
    staged = Path(record.working_dir).is_dir() and Path(record.package).is_dir()
    return record if staged else None


def _path(run_id: str) -> Path:
    return home() / "jobs" / f"{run_id}.json"
