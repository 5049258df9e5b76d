"""Adapters that come from folders instead of the registry, as vLLM's load route takes them."""

import shutil
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from raylora.errors import InvalidAdapter, InvalidConfig
from raylora.tracking.adapters.reference import parse_name
from raylora.tracking.adapters.version import directory_digest

DIGEST = 12
"""Hexadecimal digits of the content's sha256 in a key."""


class Folders:
    """Names of such adapters, each with a copy of its files: a version never changes.

    A key is name@sha-DIGEST, so that other files under the same name are another version.
    """

    def __init__(self, root: Path | None, copies: Path) -> None:
        """Take folders below `root` only, or none without one; keep the copies in `copies`."""
        self.root = None if root is None else root.resolve()
        self._copies = copies
        self._keys: dict[str, str] = {}
        self._adding = threading.Lock()

    @property
    def keys(self) -> Mapping[str, str]:
        """Each name with its key."""
        return dict(self._keys)

    def key(self, name: str) -> str | None:
        """Key of the version of this name; None where there is no such name."""
        return self._keys.get(name)

    def path(self, key: str) -> Path | None:
        """The copy; None where the key is not of a folder."""
        return self._copies / key if key in self._keys.values() else None

    def add(self, name: str, folder: str) -> str:
        """Copy a folder's files, not yet checked; the key. Raises InvalidAdapter. Blocking."""
        source = self._allowed(_named(name), folder)
        self._copies.mkdir(parents=True, exist_ok=True)
        with (
            self._adding,
            tempfile.TemporaryDirectory(dir=self._copies, prefix=".copy-") as staging,
        ):
            copy = Path(shutil.copytree(source, Path(staging) / "adapter", symlinks=True))
            _refuse_links(copy, folder)
            key = f"{name}@sha-{directory_digest(copy)[:DIGEST]}"
            if self._keys.get(name, key) != key:
                raise InvalidAdapter(
                    f"{name} is loaded already, as {self._keys[name]}", hint="unload it first"
                )
            # A rename onto a filled folder fails: it was copied before.
            with suppress(OSError):
                copy.rename(self._copies / key)
            self._keys[name] = key
            return key

    def remove(self, name: str) -> None:
        """Forget a name, if there is one."""
        self._keys.pop(name, None)

    def restore(self, keys: Mapping[str, str]) -> None:
        """Know again the names whose copies are still there."""
        self._keys = {name: key for name, key in keys.items() if (self._copies / key).is_dir()}

    def _allowed(self, name: str, folder: str) -> Path:
        if self.root is None:
            raise InvalidAdapter(
                "this endpoint takes no adapters from folders",
                hint="set adapters_root in its config, or register the adapter",
            )
        wanted = (self.root / folder).resolve()
        if not wanted.is_relative_to(self.root) or wanted == self.root:
            raise InvalidAdapter(f"{folder} is not below adapters_root")
        if not wanted.is_dir():
            raise InvalidAdapter(f"{name}: there is no folder {folder}")
        return wanted


def _refuse_links(directory: Path, shown: str) -> None:
    for path in directory.rglob("*"):
        if path.is_symlink():
            raise InvalidAdapter(f"{shown}: {path.relative_to(directory)} is a link")


def _named(name: str) -> str:
    try:
        return parse_name(name)
    except InvalidConfig as error:
        raise InvalidAdapter(error.problems[0].message, hint=error.problems[0].remedy) from error
