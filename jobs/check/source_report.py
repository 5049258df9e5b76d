"""What is said of one source: the whole of it, read once."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import fsspec

from raylora.config.data_spec import SourceSpec
from raylora.jobs.check.duplicates import Duplicates, repeated
from raylora.jobs.check.minhash import Signatures, normal, sign
from raylora.jobs.check.near_duplicates import Near, within
from raylora.jobs.check.scan import Scan, Text
from raylora.jobs.data import hub
from raylora.jobs.data.records import Fault, Place
from raylora.jobs.data.sources import locate

EXAMPLES: Final = 5


@dataclass(frozen=True)
class Problem:
    """A row that cannot be used."""

    file: str
    line: int
    message: str
    hint: str


@dataclass(frozen=True)
class Alike:
    """A row and another one that nearly equals it."""

    row: Place
    other: Place
    similarity: float


@dataclass(frozen=True)
class NearDuplicates:
    """Rows that nearly equal another one."""

    rows: int
    of_rows: int
    """Rows that were compared."""
    is_all: bool
    pairs: tuple[Alike, ...]
    """The most alike."""


@dataclass(frozen=True)
class Column:
    """A column, and how many rows have it."""

    name: str
    rows: int


@dataclass(frozen=True)
class SourceReport:
    """A source as a whole."""

    source: str
    part: str
    """train or validation."""
    files: int
    bytes: int
    rows: int
    """Those that cannot be used as well."""
    shape: str
    columns: tuple[Column, ...]
    bad_rows: int
    bad: tuple[Problem, ...]
    """The first of the bad rows."""
    seconds: float
    """To read all of it and to find what stands here."""
    megabytes_per_second: float
    duplicates: Duplicates
    near_duplicates: NearDuplicates


def source_report(found: Scan, base_dir: Path) -> SourceReport:
    """All that is said of a source that has been scanned."""
    started = time.perf_counter()
    texts = list(found.texts)
    near = near_report(within(signatures(texts)), texts, texts, is_all=len(texts) == found.good)
    duplicates = repeated(found.keys)
    files, size = _size(found.part.source, base_dir)
    seconds = found.seconds + time.perf_counter() - started
    return SourceReport(
        source=found.part.source.source,
        part=found.part.name,
        files=files,
        bytes=size,
        rows=found.good + found.faults.count,
        shape=found.shape,
        columns=_columns(found.columns),
        bad_rows=found.faults.count,
        bad=tuple(map(problem, found.faults.first)),
        seconds=seconds,
        megabytes_per_second=size / 1e6 / seconds,
        duplicates=duplicates,
        near_duplicates=near,
    )


def signatures(texts: Sequence[Text]) -> Signatures:
    """Signatures of the texts kept of a source."""
    return sign([normal(text.text) for text in texts])


def near_report(
    near: Near, texts: Sequence[Text], others: Sequence[Text], *, is_all: bool
) -> NearDuplicates:
    """Pairs of texts and others with their places; is_all: whether no row was left out."""
    best = zip(near.texts, near.others, near.similarities, strict=True)
    pairs = tuple(
        Alike(texts[text].place, others[other].place, float(similarity))
        for text, other, similarity in islice(best, EXAMPLES)
    )
    return NearDuplicates(len(near), len(texts), is_all, pairs)


def problem(fault: Fault) -> Problem:
    """A bad row as it is reported."""
    place = fault.place
    return Problem(place.file, place.line, str(fault.problem), fault.problem.hint)


def _columns(sets: Mapping[tuple[str, ...], int]) -> tuple[Column, ...]:
    rows: Counter[str] = Counter()
    for names, count in sets.items():
        rows.update(dict.fromkeys(names, count))
    return tuple(Column(name, count) for name, count in rows.most_common())


def _size(source: SourceSpec, base_dir: Path) -> tuple[int, int]:
    """Files and their bytes, as they are stored; a data set of the hub has rows and no files."""
    if source.source.startswith(hub.PREFIX):
        return 0, 0
    files = locate(source, base_dir)
    remote: Any = fsspec
    systems = (remote.core.url_to_fs(file) for file in files)
    return len(files), sum(system.size(path) or 0 for system, path in systems)
