"""Which of a spool's records are sent next, and how many of them at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from raylora.tracking.mlflow_run import BATCH
from raylora.tracking.spooling.records import (
    Artifacts,
    Content,
    DatasetUsed,
    Metrics,
    Params,
    Record,
    Status,
    Tags,
)
from raylora.tracking.spooling.spool import Role, Segment, read, segments

SOON = (Params, Tags, Content, Artifacts, DatasetUsed)
"""A driver's records that are about nothing a worker wrote, and do not wait for it."""


@dataclass(frozen=True)
class Batch:
    """Records of one file that are sent together: many Metrics, or one of another kind."""

    segment: Segment
    end: int
    records: Sequence[Record]
    damaged: int = 0


def next_batch(folder: Path, offsets: Mapping[str, int]) -> Batch | None:
    """What comes after what was sent, by file; None where all of it was."""
    found = segments(folder)
    # The driver's first: what it is about was written before, so it is seen in what follows.
    driver = _first([s for s in found if s.role is Role.DRIVER], offsets)
    if driver is not None and any(map(_is_soon, driver.records)):
        return driver
    return _first([s for s in segments(folder) if s.role is Role.WORKER], offsets) or driver


def batch_of(segment: Segment, offset: int) -> Batch | None:
    """The records of a file from an offset on that go together; None at its end."""
    points = damaged = 0
    end = offset
    taken: list[Record] = []
    for record, behind in islice(read(segment, offset), BATCH):
        if isinstance(record, Metrics):
            points += len(record.values)
            if taken and points > BATCH:
                break
            taken.append(record)
        elif record is None:
            damaged += 1
        elif taken:
            break
        else:
            return Batch(segment, behind, [record], damaged)
        end = behind
    return None if end == offset else Batch(segment, end, taken, damaged)


def _first(among: Sequence[Segment], offsets: Mapping[str, int]) -> Batch | None:
    found = (batch_of(segment, offsets.get(segment.name, 0)) for segment in among)
    return next(filter(None, found), None)


def _is_soon(record: Record) -> bool:
    begins = isinstance(record, Status) and not record.status.terminal
    return begins or isinstance(record, SOON)
