"""What a spec's data is, before anything is started: mistakes, counts, digests."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from raylora.config.data_spec import DataSpec, Ingest, SourceSpec
from raylora.jobs.data.conversation import canonical
from raylora.jobs.data.faults import Faults
from raylora.jobs.data.partition import held_out_rows, held_out_sources, training_rows
from raylora.jobs.data.records import Fault
from raylora.jobs.data.rows import PlacedRow, no_rows

LOOKED_AT: Final = 1000
"""Rows of a streamed source."""


@dataclass(frozen=True)
class Surveyed:
    """One source as a run's record names it."""

    name: str
    source: str
    digest: str
    """sha256 of what the rows say, whatever their files look like."""
    rows: int
    size: int
    """Bytes of what the rows say, as JSON."""
    context: str
    """training or validation."""


def survey(data: DataSpec, base_dir: Path) -> list[Surveyed]:
    """Pass over the rows once, so that mistakes in them are found before anything is started.

    Nothing is tokenised and no rows are kept. Of sources that are streamed the first LOOKED_AT
    rows are looked at. Raises InvalidData.
    """
    found: list[Surveyed] = []
    for source in data.sources:
        rows = training_rows(source, data, base_dir)
        if data.ingest is Ingest.STREAMING:
            rows = islice(rows, LOOKED_AT)
        found.append(_surveyed(source, rows, data, "training"))
    for source in held_out_sources(data, base_dir):
        rows = held_out_rows(source, data, base_dir)
        found.append(_surveyed(source, rows, data, "validation"))
    return found


def _surveyed(
    source: SourceSpec, rows: Iterable[PlacedRow | Fault], data: DataSpec, context: str
) -> Surveyed:
    faults = Faults(data.bad_rows)
    digest = hashlib.sha256()
    count = size = 0
    for row in rows:
        if isinstance(row, Fault):
            faults.add(row)
            continue
        count += 1
        said = canonical(row.content)
        size += len(said)
        digest.update(said)
    faults.settle()
    if not count and not data.validation_ratio:
        raise no_rows(source.source, faults)
    name = Path(source.source).stem
    return Surveyed(name, source.source, digest.hexdigest(), count, size, context)
