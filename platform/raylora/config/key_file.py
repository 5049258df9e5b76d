"""The endpoint's keys: a file of hashes, of what each key may use and how fast.

A key is 32 random bytes, so one round of SHA-256 hides it: there is nothing to guess, which is
what slow hashes are against. The key itself is shown once, when it is made, and is on no disk.
"""

import hashlib
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from filelock import FileLock
from pydantic import Field, StringConstraints, ValidationError, model_validator

from raylora.config.spec import AdapterName, Spec
from raylora.errors import InvalidConfig, NotFound, Problem

PREFIX = "rl-"
"""Begins every key, so that one is known as such where it should not be."""
EVERYTHING = "*"

Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:*?\[\]!-]{1,128}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ApiKey(Spec):
    """One key, as far as a file may know it."""

    id: AdapterName
    """Its name; what logs call it."""
    sha256: Digest
    adapters: tuple[Pattern, ...] = Field(default=(EVERYTHING,), min_length=1)
    """Names that it may use, of adapters and of the base, with * and ? as in file names."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Of prompts and answers together."""
    admin: bool = False
    """May also read metrics, and load and unload adapters."""
    created: datetime | None = None

    def may_use(self, model: str) -> bool:
        """Whether the list allows a model by its name; which version of it does not matter."""
        name = model.partition("@")[0]
        return any(fnmatchcase(name, pattern) for pattern in self.adapters)

    @property
    def may_use_all(self) -> bool:
        """Whether no name is hidden from it."""
        return EVERYTHING in self.adapters


class KeyFile(Spec):
    """All keys of an endpoint."""

    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _ids_are_unique(self) -> "KeyFile":
        ids = [key.id for key in self.keys]
        if twice := {name for name in ids if ids.count(name) > 1}:
            raise ValueError(f"two keys have the id {min(twice)}")
        return self


def digest(secret: str) -> str:
    """What a file holds of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_keys(path: Path) -> KeyFile:
    """Read a key file. Raises InvalidConfig, NotFound."""
    try:
        return KeyFile.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no key file {path}", hint=f"raylora serve keys add NAME --file {path}"
        ) from error
    except (OSError, ValidationError) as error:
        raise _unreadable(path, error) from error


def add_key(path: Path, make: Callable[[str], ApiKey]) -> tuple[ApiKey, str]:
    """Append a key to the file, which is made where there is none.

    make: the entry for a digest. Gives the entry and the key itself, which is not kept. Raises
    InvalidConfig where the name is taken.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    entry = make(digest(secret))
    with _locked(path):
        known = read_keys(path).keys if path.exists() else ()
        if any(key.id == entry.id for key in known):
            message = f"{path} has a key of this name"
            remedy = f"Write another name, or first: raylora serve keys remove {entry.id}"
            raise InvalidConfig([Problem(entry.id, message, remedy)])
        _write(path, KeyFile(keys=(*known, entry)))
    return entry, secret


def remove_key(path: Path, name: str) -> None:
    """Take a key out of the file. Raises NotFound."""
    with _locked(path):
        known = read_keys(path).keys
        if all(key.id != name for key in known):
            there = ", ".join(key.id for key in known) or "none"
            raise NotFound(f"no key {name!r} in {path}", hint=f"there are: {there}")
        _write(path, KeyFile(keys=tuple(key for key in known if key.id != name)))


def now() -> datetime:
    """The time a key is made."""
    return datetime.now(UTC).replace(microsecond=0)


def _locked(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock", mode=0o600)


def _write(path: Path, content: KeyFile) -> None:
    """Replace the file in one step: a reader finds the old keys or the new ones, never half."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    # O_EXCL with the mode: there is no moment at which the file exists and others may read it.
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content.model_dump_json(indent=2, exclude_defaults=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


def _unreadable(path: Path, error: OSError | ValidationError) -> InvalidConfig:
    if isinstance(error, OSError):
        return InvalidConfig([Problem("keys", f"cannot read {path}: {error}", "Write its path")])
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return InvalidConfig(
        [
            Problem(
                "keys",
                f"{path} is no key file: {where + ': ' if where else ''}{first['msg']}",
                "Make it with: raylora serve keys add NAME --file FILE",
            )
        ]
    )
