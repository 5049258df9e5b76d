"""One pass over a source as it is, before any tokenisation: fast, and in bounded memory."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from raylora.config.data_spec import BadRows, DataSpec, Shape, SourceSpec
from raylora.jobs.check.content_key import compared, prompt_key, row_key, size
from raylora.jobs.check.minhash import MAX_TEXT
from raylora.jobs.check.row_keys import RowKeys
from raylora.jobs.check.sample import Sample
from raylora.jobs.data.conversation import Content
from raylora.jobs.data.faults import Faults
from raylora.jobs.data.records import BadLine, Fault, Place, Record
from raylora.jobs.data.rows import PlacedRow
from raylora.jobs.data.shapes import Shaper
from raylora.jobs.data.sources import records

LONGEST: Final = 5
MOST_COLUMN_SETS: Final = 1000
"""Different sets of columns that are told apart; rows with more say nothing about columns."""

ROWS_SIZE: Final = 32_000_000
"""Characters of the rows kept to be tokenised."""


class Text(NamedTuple):
    """What of a row is compared for likeness."""

    place: Place
    text: str


@dataclass(frozen=True)
class Limits:
    """How many rows of a source are kept in memory."""

    rows: int
    """To be tokenised."""
    texts: int
    """To be compared for likeness."""
    text_size: int
    """Characters of all of these together."""
    prompts: bool = False
    """Whether to note what each row asks."""


@dataclass(frozen=True)
class Part:
    """Rows of one source, all of them or those of one side."""

    name: str
    """train or validation."""
    source: SourceSpec
    has: Callable[[Content], bool]
    """Whether a row of the source is one of them."""
    tells_faults: bool = True
    """Whether rows that cannot be used are told of here."""


@dataclass
class Scan:
    """What one pass has found."""

    part: Part
    rows: Sample[PlacedRow]
    texts: Sample[Text]
    faults: Faults = field(default_factory=lambda: Faults(BadRows.SKIP))
    keys: RowKeys = field(default_factory=RowKeys)
    prompts: RowKeys = field(default_factory=RowKeys)
    columns: dict[tuple[str, ...], int] = field(default_factory=dict[tuple[str, ...], int])
    longest: Sample[PlacedRow] = field(default_factory=lambda: Sample(LONGEST, ROWS_SIZE))
    """By their text; a Sample whose priorities are not random."""
    shape: str = Shape.AUTO.value
    good: int = 0
    """Rows that can be used."""
    seconds: float = 0.0

    def forget(self) -> None:
        """Let go of what the tokens of the rows need not: up to 200 MB."""
        self.keys, self.prompts, self.texts = RowKeys(), RowKeys(), Sample(0, 0)


def scan(part: Part, data: DataSpec, base_dir: Path, limits: Limits) -> Scan:
    """Read every row of a source.

    A row that cannot be used is counted. Raises InvalidData for a source that cannot be read at
    all, InvalidConfig for columns or templates that the spec has wrong.
    """
    started = time.perf_counter()
    shaper = Shaper(part.source, data)
    found = Scan(part, Sample(limits.rows, ROWS_SIZE), Sample(limits.texts, limits.text_size))
    draw = random.Random(0).random
    for record in records(part.source, base_dir):
        if isinstance(record, Fault):
            found.faults.add(record)
            continue
        _count_columns(found, record)
        try:
            content = shaper.convert(record.fields)
        except BadLine as problem:
            found.faults.add(Fault(record.place, problem))
            continue
        if part.has(content):
            _note(found, record.place, content, draw())
            if limits.prompts:
                found.prompts.add(prompt_key(content), record.place)
    if not part.tells_faults:
        found.faults = Faults(BadRows.SKIP)
    found.good = found.keys.rows
    found.shape = shaper.shape.value
    found.seconds = time.perf_counter() - started
    return found


def _count_columns(found: Scan, record: Record) -> None:
    names = tuple(record.fields)
    if names in found.columns:
        found.columns[names] += 1
    elif len(found.columns) < MOST_COLUMN_SETS:
        found.columns[names] = 1


def _note(found: Scan, place: Place, content: Content, priority: float) -> None:
    found.keys.add(row_key(content), place)
    length = size(content)
    if -length < found.longest.limit:
        found.longest.offer(-length, PlacedRow(place, content), length)
    if priority < found.texts.limit:
        text = compared(content, MAX_TEXT)
        found.texts.offer(priority, Text(place, text), len(text))
    if priority < found.rows.limit:
        found.rows.offer(priority, PlacedRow(place, content), length)
