"""The file of answers: what is in it already, and lines that are whole or not there."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from raylora.errors import InvalidConfig, Problem, RayloraError
from raylora.lora import atomic

Key = tuple[int, str]
"""Row and version."""


class Book:
    """Opened for one batch. A second one for the same file is refused until it is closed.

    Beside the file lies FILE.batch.json: what was asked of which versions. A batch that goes on
    asks the versions it began with, wherever their aliases have moved since.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any]) -> None:
        """Begin, or go on with what is there. Raises InvalidConfig where that is another batch.

        plan: what must be the same; of `versions` those that were written down count.
        """
        self.path = path
        self._beside = path.with_name(f"{path.name}.batch.json")
        self._plan = dict(plan)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{path}.lock")
        self.done: set[Key] = set()
        """What has a line."""
        self.refused = 0
        """Lines that say why there is no answer."""

    def __enter__(self) -> Self:
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise RayloraError(
                f"another batch is writing {self.path}", hint="raylora jobs list"
            ) from error
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()

    @property
    def versions(self) -> dict[str, str]:
        """By reference, the version that answers for it."""
        return self._plan["versions"]

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines, flushed to the disk."""
        for line in lines:
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._note(line)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _begin(self) -> None:
        if self._beside.is_file():
            self._go_on()
        elif self.path.exists():
            raise _other(self.path, "it is there already and no batch has written it")
        else:
            atomic.write_text(self._beside, json.dumps(self._plan, indent=2) + "\n")
        self._file = self.path.open("ab")

    def _go_on(self) -> None:
        known = json.loads(self._beside.read_text(encoding="utf-8"))
        differs = [
            name
            for name, value in self._plan.items()
            if name != "versions" and known[name] != value
        ]
        if set(known["versions"]) != set(self._plan["versions"]):
            differs.append("adapters")
        if differs:
            raise _other(self.path, f"it was begun with another {', '.join(differs)}")
        self._plan = known
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    # The process was killed while it wrote this one.
                    file.truncate(file.seek(-len(line), os.SEEK_END))
                    break
                self._note(json.loads(line))

    def _note(self, line: Mapping[str, Any]) -> None:
        self.done.add((line["row"], line["adapter"]))
        self.refused += "error" in line


def _other(path: Path, why: str) -> InvalidConfig:
    return InvalidConfig(
        [Problem("output", f"{path}: {why}", "Write the name of a file that is not there yet")]
    )
