"""raylora.json: what a directory holds and where it came from.

    {"format": 1, "lineage": {...}, "files": {"NAME": {"size": bytes, "sha256": hex}, ...}}

Adapters and checkpoints carry one. Names are relative, with forward slashes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raylora.errors import InvalidAdapter
from raylora.lora import atomic

NAME = "raylora.json"

_MAX_BYTES = 4 << 20


class FileFact(BaseModel):
    """Size in bytes and sha256 of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """The content of raylora.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    lineage: dict[str, Any]
    files: dict[str, FileFact]


def write(directory: Path, lineage: Mapping[str, Any]) -> None:
    """Record every file now in `directory`, with JSON-able lineage. Replaces an older manifest."""
    files = {
        name: FileFact(size=path.stat().st_size, sha256=_sha256(path))
        for name, path in sorted(_files(directory).items())
    }
    record = Manifest(lineage=dict(lineage), files=files)
    atomic.write_text(directory / NAME, record.model_dump_json(indent=2) + "\n")


def read(directory: Path) -> Manifest:
    """Read the manifest without looking at the files it names. Raises InvalidAdapter."""
    outcome = _read(directory)
    if isinstance(outcome, _Fault):
        raise InvalidAdapter(f"{directory}: {outcome.text}")
    return outcome


def find_fault(directory: Path) -> str | None:
    """Compare every file with the manifest; say what is wrong, or None.

    Names and sizes are compared before any content is read.
    """
    record = _read(directory)
    if isinstance(record, _Fault):
        return record.text
    for name in record.files:
        if not _is_safe(name):
            return f"{NAME} names {name!r}, which is not a plain path inside the directory"
    for path in directory.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            return f"{path.relative_to(directory)} is not a regular file"
    present = _files(directory)
    if missing := sorted(record.files.keys() - present.keys()):
        return f"{missing[0]} is missing"
    if extra := sorted(present.keys() - record.files.keys()):
        return f"{extra[0]} is not in {NAME}"
    for name, fact in record.files.items():
        if (size := present[name].stat().st_size) != fact.size:
            return f"{name} has {size} bytes, {NAME} says {fact.size}"
    for name, fact in record.files.items():
        if _sha256(present[name]) != fact.sha256:
            return f"the content of {name} does not match its sha256 in {NAME}"
    return None


@dataclass(frozen=True)
class _Fault:
    text: str


def _read(directory: Path) -> Manifest | _Fault:
    path = directory / NAME
    if path.is_symlink() or not path.is_file():
        return _Fault(f"there is no {NAME}")
    if (size := path.stat().st_size) > _MAX_BYTES:
        return _Fault(f"{NAME} has {size} bytes, more than {_MAX_BYTES}")
    try:
        return Manifest.model_validate(json.loads(path.read_text("utf-8")))
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        return _Fault(f"{NAME} is not a manifest: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error).partition("\n")[0]


def _files(directory: Path) -> dict[str, Path]:
    """Regular files below `directory` by relative name, without the manifest itself."""
    found = {
        path.relative_to(directory).as_posix(): path
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    found.pop(NAME, None)
    return found


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    plain = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return plain and "\\" not in name and "\0" not in name


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
