"""Which rows are learnt from and which are held out."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from raylora.config.data_spec import DataSpec, SourceSpec
from raylora.errors import InvalidData
from raylora.jobs.data import hub
from raylora.jobs.data.conversation import Content, canonical
from raylora.jobs.data.records import Fault
from raylora.jobs.data.rows import PlacedRow, stream
from raylora.jobs.data.sources import has_splits

HUB_SPLIT = "validation"
"""Split of a hub data set that data.validation names."""


def training_rows(
    source: SourceSpec, data: DataSpec, base_dir: Path
) -> Iterator[PlacedRow | Fault]:
    """Yield the rows of one training source without those held out; faults are all there."""
    for row in stream(source, data, base_dir):
        if isinstance(row, Fault) or not is_held_out(row.content, data.validation_ratio):
            yield row


def held_out_rows(
    source: SourceSpec, data: DataSpec, base_dir: Path
) -> Iterator[PlacedRow | Fault]:
    """Yield the held-out rows of one of held_out_sources.

    Faults of a source that is trained on as well are left to training_rows.
    """
    rows = stream(source, data, base_dir)
    if not data.validation_ratio:
        yield from rows
        return
    for row in rows:
        if not isinstance(row, Fault) and is_held_out(row.content, data.validation_ratio):
            yield row


def held_out_sources(data: DataSpec, base_dir: Path) -> tuple[SourceSpec, ...]:
    """Where the held-out rows are; with a ratio these are the training sources.

    Raises InvalidData where a split is held out of a source that has none.
    """
    first = data.sources[0]
    if data.validation_ratio:
        return data.sources
    if data.validation_split:
        if not has_splits(first, base_dir):
            raise InvalidData(
                f"has no splits, and data.validation_split={data.validation_split} asks for one",
                file=first.source,
                hint="name a file in data.validation, or set data.validation_ratio",
            )
        return (first.model_copy(update={"split": data.validation_split}),)
    if data.validation is None:
        return ()
    split = HUB_SPLIT if data.validation.startswith(hub.PREFIX) else first.split
    return (first.model_copy(update={"source": data.validation, "split": split}),)


def held_out_label(data: DataSpec) -> str:
    """Where held-out rows come from, for people."""
    if data.validation_ratio:
        return f"{data.validation_ratio:.0%} of {data.train_label}"
    if data.validation_split:
        return f"{data.train} [{data.validation_split}]"
    return data.validation or "nowhere"


def is_held_out(content: Content, ratio: float) -> bool:
    """Decided by what a row says alone: copies of it are all on one side, in every run."""
    if not ratio:
        return False
    digest = hashlib.sha256(canonical(content)).digest()
    return int.from_bytes(digest[:8], "big") < ratio * 2**64
