"""What an endpoint held, on disk: a replica that restarts comes back to it."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from raylora.lora import atomic

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remembered:
    """Names, not versions: where an alias moved meanwhile, it is followed."""

    pins: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    """Names by which the loaded versions were asked for."""
    folders: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names of adapters that came from folders, with their keys."""
    rolled_back: tuple[str, ...] = ()
    """Versions of canaries that failed too often."""


class Memory(Protocol):
    """Where it is written. Blocking."""

    def read(self) -> Remembered:
        """What was written last; empty where there is nothing that can be read."""
        ...

    def write(self, state: Remembered) -> None:
        """Replace it."""
        ...


class NoMemory:
    """Starts empty each time."""

    def read(self) -> Remembered:
        """Nothing."""
        return Remembered()

    def write(self, state: Remembered) -> None:
        """Nowhere."""


class MemoryFile:
    """One JSON file for all replicas of an endpoint on this machine."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Remembered:
        """A file that cannot be read is logged, and starts empty."""
        try:
            return _STATE.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return Remembered()
        except (OSError, ValidationError) as error:
            log.warning("%s is not readable, starting without: %s", self._file, error)
            return Remembered()

    def write(self, state: Remembered) -> None:
        """In one step; a full disk is logged and stops nothing.

        What another replica has rolled back stays so: each judges by its own answers.
        """
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic.locked(self._file.with_suffix(".lock")):
                known = {*self.read().rolled_back, *state.rolled_back}
                document: dict[str, Any] = asdict(state) | {"rolled_back": sorted(known)}
                atomic.write_text(self._file, to_json(document, indent=1).decode())
        except OSError as error:
            log.warning("cannot write %s: %s", self._file, error)


_STATE = TypeAdapter(Remembered)
