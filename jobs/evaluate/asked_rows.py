"""The rows of a data set that is asked: each with its options, or with what is wrong with it."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, cast

from raylora.config.evaluate_spec import AskedSpec
from raylora.errors import InvalidData
from raylora.jobs.data.conversation import Content, canonical
from raylora.jobs.data.kinds import kind
from raylora.jobs.data.records import BadLine, Fault, Place
from raylora.jobs.data.shapes import Shaper
from raylora.jobs.data.sources import records

MAX_LENGTH = 1 << 30
"""Rows are read whatever their length; whether they fit is the engine's to say."""


@dataclass(frozen=True)
class AskedRow:
    """One row."""

    place: Place
    content: Content
    options: tuple[str, ...] = ()


Read: TypeAlias = AskedRow | Fault


@dataclass(frozen=True)
class AskedRows:
    """All rows of one data set, in their order, those that cannot be used among them."""

    dataset: str
    source: str
    rows: tuple[Read, ...]
    digest: str
    """sha256 of what the rows say, whatever their file looks like."""


def read(spec: AskedSpec, max_rows: int | None, base_dir: Path) -> AskedRows:
    """Read the first rows. Raises InvalidData where there is none that can be used."""
    rows = tuple(islice(_rows(spec, base_dir), max_rows))
    usable = [row for row in rows if isinstance(row, AskedRow)]
    if not usable:
        raise InvalidData(
            f"none of its {len(rows)} rows can be asked{_first(rows)}",
            file=spec.source,
            hint="write rows in a shape of docs/datasets.md, one a line",
        )
    digest = hashlib.sha256()
    for row in usable:
        digest.update(canonical(row.content) + json.dumps(row.options).encode())
    return AskedRows(spec.label, spec.source, rows, digest.hexdigest())


def _rows(spec: AskedSpec, base_dir: Path) -> Iterator[Read]:
    shaper = Shaper(spec.origin, spec.as_data(MAX_LENGTH))
    for found in records(spec.origin, base_dir):
        if isinstance(found, Fault):
            yield found
            continue
        try:
            content = shaper.convert(found.fields)
            yield AskedRow(found.place, content, _options(spec, found.fields))
        except BadLine as problem:
            yield Fault(found.place, problem)


def _options(spec: AskedSpec, fields: dict[str, Any]) -> tuple[str, ...]:
    column = spec.options_column
    if column is None:
        return spec.options
    value = fields.get(column)
    if isinstance(value, str):  # CSV has no lists
        with suppress(ValueError):
            value = json.loads(value)
    options = cast(list[object], value) if isinstance(value, list) else []
    if len(options) < 2 or not all(isinstance(one, str) and one.strip() for one in options):
        raise BadLine(
            f"column {column!r} is {kind(value)}", "write a list of two or more texts as options"
        )
    return tuple(str(one) for one in options)


def _first(rows: tuple[Read, ...]) -> str:
    faults = [row for row in rows if isinstance(row, Fault)]
    return f"; the first: {faults[0].place}: {faults[0].problem}" if faults else ""
