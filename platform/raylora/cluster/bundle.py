"""What travels with a job: the resolved spec, the local files it names, the package."""

from collections.abc import Mapping
from dataclasses import dataclass
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
    """Dotted key in the spec, such as data.train."""
    source: Path
    path: str
    """Where it is for the job, relative to its working directory."""
    size: int
    """Bytes."""


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

    named_files: dotted key of the spec -> local file. In the staged spec the key's value is
    replaced by the file's place below the job's working directory. Raises InvalidConfig where a
    file is missing or all of them together exceed LIMIT_BYTES.
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
    if missing := [_missing(key, path) for key, path in named_files.items() if not path.is_file()]:
        raise InvalidConfig(missing)
    sizes = {key: path.stat().st_size for key, path in named_files.items()}
    _refuse_too_much(named_files, sizes)
    return tuple(
        ShippedFile(key, path, f"files/{sha256_of(path)[:16]}-{path.name}", sizes[key])
        for key, path in named_files.items()
    )


def _refuse_too_much(named_files: Mapping[str, Path], sizes: Mapping[str, int]) -> None:
    total = sum(sizes.values())
    if total <= LIMIT_BYTES:
        return
    largest = sorted(sizes, key=lambda key: sizes[key], reverse=True)
    listed = ", ".join(f"{key} {named_files[key]} ({sizes[key] / 1e6:.1f} MB)" for key in largest)
    raise InvalidConfig(
        [
            Problem(
                largest[0],
                f"the files of this job are {total / 1e6:.1f} MB and at most "
                f"{LIMIT_BYTES / 1e6:.0f} MB travel with a job: {listed}",
                "Put them on a shared file system, or on object storage that every node mounts, "
                "and write file:///shared/train.jsonl: that is read in place and not shipped",
            )
        ]
    )


def _missing(key: str, path: Path) -> Problem:
    found = "it is a folder" if path.is_dir() else "there is no such file"
    return Problem(key, f"cannot read {path}: {found}", "Write the path of a JSONL file")


def _rewritten(spec_yaml: str, files: tuple[ShippedFile, ...]) -> str:
    if not files:
        return spec_yaml
    spec: dict[str, Any] = yaml.safe_load(spec_yaml)
    for file in files:
        *sections, last = file.key.split(".")
        section = spec
        for name in sections:
            section = section[name]
        section[last] = file.path
    return yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)


def _package(content: Content) -> Path:
    return stage("packages", content, keep=_KEEP_PACKAGES) / "raylora"
