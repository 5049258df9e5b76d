"""Whose key a request carries: the keys of a file, read again when it changes."""

import hmac
import logging
from pathlib import Path
from typing import Protocol

from raylora.config.key_file import ApiKey, digest, read_keys
from raylora.errors import InvalidConfig, NotFound

log = logging.getLogger(__name__)

ANYONE = ApiKey(id="anyone", sha256="0" * 64, admin=True)
"""Who asks where no keys are configured; the digest is of no key."""


class Keyring(Protocol):
    """The keys there are."""

    def find(self, secret: str | None) -> ApiKey | None:
        """The key of this secret; None lets nobody in."""
        ...


class OpenDoor:
    """In place of keys, on loopback: who reaches it may use it."""

    def find(self, secret: str | None) -> ApiKey | None:
        """Anyone."""
        return ANYONE


class FileKeyring:
    """The keys of a file.

    A file that is gone has no keys. One that is no key file any more is an error in the log, and
    the keys that were read before go on: a slip of the editor must not lock everybody out.
    """

    def __init__(self, path: Path) -> None:
        """Raises NotFound, InvalidConfig."""
        self._path = path
        self._seen = self._stamp()
        self._keys = read_keys(path).keys

    def find(self, secret: str | None) -> ApiKey | None:
        """The key of this secret. All digests are compared, so time tells nothing about one."""
        self._look()
        if secret is None:
            return None
        wanted = digest(secret)
        same = [key for key in self._keys if hmac.compare_digest(key.sha256, wanted)]
        return same[0] if same else None

    def _look(self) -> None:
        stamp = self._stamp()  # 2 us a request; a key that was removed is refused by the next one
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = read_keys(self._path).keys
            log.info("%s has changed: %d keys", self._path, len(self._keys))
        except NotFound:
            self._keys = ()
            log.error("%s is gone: nobody is let in until it is back", self._path)
        except InvalidConfig as error:
            log.error("the keys stay as they were: %s", error.message)

    def _stamp(self) -> tuple[int, int, int] | None:
        """Changes with the file; a replaced one has another inode."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def keyring(path: str | None) -> Keyring:
    """The keys of a spec."""
    return OpenDoor() if path is None else FileKeyring(Path(path))
