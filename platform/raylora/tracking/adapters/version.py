"""A registered adapter: its identity, its facts, and the digest that proves its files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.errors import InvalidAdapter
from raylora.tracking.run import RUN_ID_TAG
from raylora.tracking.run_facts import moment

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

DIGEST_TAG = "raylora.digest"
"""On a version: sha256 over the names and contents of its files."""
QUANTIZATION_TAG = "raylora.quantization"
"""On a version: what its base was stored in when it was trained."""


@dataclass(frozen=True)
class Version:
    """A registered adapter."""

    name: str
    version: int
    run_id: str
    """raylora's id of the run that it came from."""
    mlflow_run_id: str
    source: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    created: datetime

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class AdapterSummary:
    """A name with its newest version and where its aliases point."""

    name: str
    newest: int
    aliases: dict[str, int]
    updated: datetime


@dataclass(frozen=True)
class AdapterDetails:
    """A version beside the others of its name; files maps paths in the adapter to bytes."""

    version: Version
    versions: Sequence[int]
    aliases: dict[str, int]
    files: dict[str, int]


def version_of(found: "ModelVersion") -> Version:
    """A version as MLflow gives it."""
    tags = dict(found.tags)
    return Version(
        name=found.name,
        version=int(found.version),
        run_id=tags.get(RUN_ID_TAG, found.run_id or ""),
        mlflow_run_id=found.run_id or "",
        source=found.source or "",
        aliases=tuple(sorted(found.aliases)),
        tags=tags,
        created=moment(found.creation_timestamp),
    )


def same_files(version: Version, digest: str) -> Version:
    """The version, if `digest` is that of its files. Raises InvalidAdapter."""
    registered = version.tags.get(DIGEST_TAG, digest)
    if registered != digest:
        raise InvalidAdapter(
            f"{version} was registered with other files: digest {registered[:12]}, "
            f"found {digest[:12]}",
            hint="a version never changes: train again to register another one",
        )
    return version


def directory_digest(directory: Path) -> str:
    """sha256 over the sorted relative names and the contents of a directory's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(directory).as_posix()}\n".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
