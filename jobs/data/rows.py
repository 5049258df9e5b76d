"""Rows of the sources that a spec names, in the shapes they come in, read in bounded memory."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylora.config.data_spec import DataSpec, SourceSpec
from raylora.errors import InvalidData
from raylora.jobs.data.conversation import Content, Conversation, Message, canonical
from raylora.jobs.data.faults import Faults
from raylora.jobs.data.records import BadLine, Fault, Place
from raylora.jobs.data.shapes import Shaper
from raylora.jobs.data.sources import records


@dataclass(frozen=True)
class PlacedRow:
    """What one row says, and where it is."""

    place: Place
    content: Content


@dataclass(frozen=True)
class Row:
    """One conversation; it ends with the assistant's answer."""

    messages: tuple[Message, ...]
    line: int
    """1-based."""
    tools: tuple[dict[str, Any], ...] = ()

    def conversation(self, system_prompt: str | None) -> list[Message]:
        """Messages, with the system prompt in front where the row has none of its own."""
        whole = Conversation(self.messages, (1.0,) * len(self.messages), self.tools)
        return list(whole.prompted(system_prompt).messages)


@dataclass(frozen=True)
class Rows:
    """The conversations of one or more sources, in their order."""

    source: str
    """As the spec names it."""
    file: str
    items: tuple[Row, ...]
    digest: str
    """sha256 of the messages: the same for the same rows, however a file spells them."""

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.items)


def stream(source: SourceSpec, data: DataSpec, base_dir: Path) -> Iterator[PlacedRow | Fault]:
    """Yield the rows of one source; what is no row of the source's shape is a Fault."""
    shaper = Shaper(source, data)
    for found in records(source, base_dir):
        if isinstance(found, Fault):
            yield found
            continue
        try:
            yield PlacedRow(found.place, shaper.convert(found.fields))
        except BadLine as problem:
            yield Fault(found.place, problem)


def read_rows(source: str, base_dir: Path) -> Rows:
    """Read the conversations of a source whose shape shows in its columns, all into memory.

    Raises InvalidData that lists the first bad rows, or names the file as a whole.
    """
    data = DataSpec()
    return collect(stream(SourceSpec(source=source), data, base_dir), source, data)


def collect(found: Iterator[PlacedRow | Fault], source: str, data: DataSpec) -> Rows:
    """Gather conversations; plain text, which asks nothing, is left out. Raises InvalidData."""
    faults = Faults(data.bad_rows)
    items: list[Row] = []
    files: dict[str, None] = {}
    digest = hashlib.sha256()
    for row in found:
        if isinstance(row, Fault):
            faults.add(row)
            continue
        files[row.place.file] = None
        digest.update(canonical(row.content))
        if isinstance(row.content, Conversation):
            items.append(Row(row.content.messages, row.place.line, row.content.tools))
    faults.settle()
    if not files:
        raise no_rows(source, faults, data.validation_ratio)
    file = next(iter(files)) if len(files) == 1 else source
    return Rows(source, file, tuple(items), digest.hexdigest())


def none_held_out(source: str, ratio: float) -> InvalidData:
    """The error of a source of which data.validation_ratio took no row."""
    return InvalidData(
        f"data.validation_ratio={ratio} holds out none of its rows",
        file=source,
        hint="raise the ratio, or name held-out rows in data.validation",
    )


def no_rows(source: str, faults: Faults, ratio: float = 0.0) -> InvalidData:
    """The error of a source without a row that can be used, or of which the ratio took none."""
    if faults.first:
        return InvalidData(
            f"none of its {faults.count} rows can be used; the first: {faults.listed()[0]}",
            file=source,
            hint=faults.first[0].problem.hint,
        )
    if ratio:
        return none_held_out(source, ratio)
    return InvalidData(
        "no rows", file=source, hint='write one row a line, such as {"messages": [...]}'
    )
