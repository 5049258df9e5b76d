"""What travels with a job: the resolved spec, the local files it names, the package."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import yaml

from raylora.cluster.staging import Content, package_content, sha256_of, stage
from raylora.errors import InvalidConfig, Problem

LIMIT_BYTES = 50_000_000
"""Files pass through the head's memory on their way to the nodes."""
SPEC_NAME = "spec.yaml"
_KEEP_BUNDLES, _KEEP_PACKAGES = 50, 5


@dataclass(frozen=True)
class ShippedFile:
    """One local file that a spec names."""

    key: str
    """Dotted key in the spec, such as data.train or data.mixture.0.source."""
    source: Path
    path: str
    """Where it is for the job, relative to its working directory."""
    size: int
    """Bytes."""
    value: str
    """What the key says in the shipped spec: the path, or the folder or glob it was found by."""


@dataclass(frozen=True)
class Bundle:
    """Staged and ready to be uploaded."""

    working_dir: Path
    """Holds spec.yaml and files/; the job's current directory is a copy of it."""
    package: Path
    """The folder `raylora`, for py_modules."""
    files: tuple[ShippedFile, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the named files."""
        return sum(file.size for file in self.files)


def build(spec_yaml: str, named_files: Mapping[str, Path] | None = None) -> Bundle:
    """Stage a job's folder and the package.

    named_files: dotted key of the spec -> local file, folder or glob. In the staged spec the key's
    value is replaced by its place below the job's working directory. Raises InvalidConfig where
    nothing is there or all of them together exceed LIMIT_BYTES.
    """
    files = list_files(named_files or {})
    content: dict[str, Path | bytes] = {file.path: file.source for file in files}
    content[SPEC_NAME] = _rewritten(spec_yaml, files).encode()
    return Bundle(
        working_dir=stage("bundles", content, keep=_KEEP_BUNDLES),
        package=_package(package_content()),
        files=files,
    )


def list_files(named_files: Mapping[str, Path]) -> tuple[ShippedFile, ...]:
    """Return what `build` would ship; same errors, nothing is copied."""
    found = {key: _found(path) for key, path in named_files.items()}
    if missing := [_missing(key, named_files[key]) for key, files in found.items() if not files]:
        raise InvalidConfig(missing)
    _refuse_too_much(
        {
            (key, path): path.stat().st_size
            for key, files in found.items()
            for path in files.values()
        }
    )
    return tuple(
        file for key, files in found.items() for file in _shipped(key, named_files[key], files)
    )


def as_named(text: str) -> str:
    """A job's words with shipped files called what they were called before they were shipped."""
    return _PLACE.sub("", text)


def is_glob(path: str) -> bool:
    """Whether a path stands for several, as far as its spelling says."""
    return re.search(r"[*?\[]", path) is not None


def _found(path: Path) -> dict[str, Path]:
    """Relative path below what is named -> file; files in hidden folders stay behind."""
    if path.is_file():
        return {path.name: path}
    if path.is_dir():
        root, names = path, glob("**/*", root_dir=path, recursive=True)
    else:
        parts = path.parts
        fixed = next((i for i, part in enumerate(parts) if is_glob(part)), len(parts))
        root = Path(*parts[:fixed])
        pattern = str(Path(*parts[fixed:])) if fixed < len(parts) else ""
        names = glob(pattern, root_dir=root, recursive=True) if pattern else []
    return {name: root / name for name in sorted(names) if (root / name).is_file()}


def _shipped(key: str, named: Path, files: Mapping[str, Path]) -> list[ShippedFile]:
    if named.is_file():
        place = f"files/{sha256_of(named)[:16]}-{named.name}"
        return [ShippedFile(key, named, place, named.stat().st_size, place)]
    said = "".join(f"{name} {sha256_of(path)}\n" for name, path in files.items())
    folder = f"files/{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    if named.is_dir():
        folder = value = f"{folder}-{named.name}"
    else:
        value = f"{folder}/**/*"
    return [
        ShippedFile(key, path, f"{folder}/{name}", path.stat().st_size, value)
        for name, path in files.items()
    ]


def _refuse_too_much(sizes: Mapping[tuple[str, Path], int]) -> None:
    total = sum(sizes.values())
    if total <= LIMIT_BYTES:
        return
    largest = sorted(sizes, key=lambda file: sizes[file], reverse=True)
    named = [f"{key} {path} ({sizes[key, path] / 1e6:.1f} MB)" for key, path in largest[:_NAMED]]
    more = [f"and {len(largest) - _NAMED} more"] if len(largest) > _NAMED else []
    listed = ", ".join(named + more)
    raise InvalidConfig(
        [
            Problem(
                largest[0][0],
                f"the files of this job are {total / 1e6:.1f} MB and at most "
                f"{LIMIT_BYTES / 1e6:.0f} MB travel with a job: {listed}",
                "Put them on a shared file system, or on object storage that every node mounts, "
                "and write file:///shared/train.jsonl: that is read in place and not shipped",
            )
        ]
    )


_PLACE = re.compile(r"[^\s'\"]*\bfiles/[0-9a-f]{16}[-/]")
"""What stands before a shipped file's own name, with or without the job's working directory."""

_NAMED = 5
"""Largest files that are named where all are too much."""


def _missing(key: str, path: Path) -> Problem:
    found = "there is no such file"
    if path.is_dir():
        found = "the folder holds no file"
    elif is_glob(str(path)):
        found = "no file matches"
    return Problem(key, f"cannot read {path}: {found}", "Write the path of a file, or a glob")


def _rewritten(spec_yaml: str, files: tuple[ShippedFile, ...]) -> str:
    if not files:
        return spec_yaml
    spec: dict[str, Any] = yaml.safe_load(spec_yaml)
    for file in files:
        *sections, last = (int(part) if part.isdigit() else part for part in file.key.split("."))
        section: Any = spec
        for name in sections:
            section = section[name]
        section[last] = file.value
    return yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)


def _package(content: Content) -> Path:
    return stage("packages", content, keep=_KEEP_PACKAGES) / "raylora"
