"""A run's spool: append-only files in a folder of the run, read by whoever sends them.

Each process that logs has files of its own, so nobody waits for another and a half line is always
the last of its file. A record is with the operating system before `append` returns: a killed
process loses none. `sync`, called at checkpoints and at the end, has the disk keep it: a power
failure takes what came after the last checkpoint, and that is trained again.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from raylora.tracking.spooling.records import Lost, Metrics, Record, decode, encode

log = logging.getLogger(__name__)

SEGMENT_BYTES = 1 << 20
"""A file that is longer is followed by another; what has been sent is deleted by files."""


class Role(StrEnum):
    """Who writes."""

    WORKER = "worker"
    DRIVER = "driver"


@dataclass(frozen=True)
class Segment:
    """A file of a spool; they sort by the time at which their writer began, then by number."""

    name: str
    path: Path
    bytes: int

    @property
    def writer(self) -> str:
        """The process that writes it."""
        return self.name.split(".")[0]

    @property
    def role(self) -> Role:
        """What the writer is to the run."""
        return Role(self.name.split("-")[0])


class SpoolWriter:
    """Appends records; made for one process, safe among its threads. Never raises."""

    def __init__(self, folder: Path, role: Role) -> None:
        self._folder = folder
        self._writer = f"{role}-{time.time_ns():020}-{os.getpid()}-{secrets.token_hex(2)}"
        self._number = 0
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()
        self._lost = 0

    def append(self, record: Record) -> None:
        """Write a record down; one that the disk does not take is counted and told of later."""
        with self._lock:
            try:
                if self._lost:
                    self._write(Lost(self._lost))
                    self._lost = 0
                self._write(record)
            except OSError as error:
                self._give_up(record, error)

    def sync(self) -> None:
        """Have the disk keep what was appended."""
        with self._lock:
            if self._file is not None:
                try:
                    os.fsync(self._file.fileno())
                except OSError as error:
                    log.warning("the spool is not safe on disk: %s", error)

    def close(self) -> None:
        """Sync and let go; appending again begins another file."""
        self.sync()
        with self._lock:
            self._next_file()

    def _write(self, record: Record) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{self._writer}.{self._number:06}.jsonl"
            self._file = path.open("ab", buffering=0)
        line = encode(record)
        if self._file.write(line) != len(line):
            raise OSError("only part of a record was written")
        if self._file.tell() >= SEGMENT_BYTES:
            self._next_file()

    def _give_up(self, record: Record, error: OSError) -> None:
        if not self._lost:
            log.warning("what is logged is being lost, the spool cannot be written: %s", error)
        self._lost += len(record.values) if isinstance(record, Metrics) else 1
        self._next_file()  # a half line may end this one

    def _next_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._number += 1


def segments(folder: Path) -> list[Segment]:
    """The files of a spool, in the order in which they were begun; workers' before the driver's.

    A worker writes before the driver hears of it, so what a driver's record is about comes first.
    """
    found: list[Segment] = []
    for path in folder.glob("*.jsonl"):
        try:
            found.append(Segment(path.name, path, path.stat().st_size))
        except FileNotFoundError:
            continue  # sent and deleted meanwhile
    return sorted(found, key=lambda segment: (segment.role is Role.DRIVER, segment.name))


def is_closed(segment: Segment, among: list[Segment]) -> bool:
    """Whether its writer has gone on to another file."""
    return any(other.writer == segment.writer and other.name > segment.name for other in among)


def read(segment: Segment, offset: int) -> Iterator[tuple[Record | None, int]]:
    """Records from an offset on, each with the offset behind it; None for a damaged line.

    A line without an end is being written, or its writer was killed: it is left alone.
    """
    if segment.bytes <= offset:
        return
    try:
        with segment.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield decode(line), offset
    except FileNotFoundError:
        return
