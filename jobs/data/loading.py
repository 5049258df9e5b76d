"""From the data a spec names to examples for training and rows held out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raylora.config.data_spec import DataSpec, SourceSpec
from raylora.errors import InvalidData
from raylora.jobs.data.cache import Part, Tokenised, cached, encode_here
from raylora.jobs.data.chat_template import use_template
from raylora.jobs.data.examples import Examples
from raylora.jobs.data.mixture import MixedExamples
from raylora.jobs.data.partition import (
    held_out_label,
    held_out_rows,
    held_out_sources,
)
from raylora.jobs.data.records import Fault
from raylora.jobs.data.report import DataReport, total
from raylora.jobs.data.rows import PlacedRow, Rows, collect, none_held_out


@dataclass(frozen=True)
class Loaded:
    """What a worker trains on."""

    train: Examples
    validation_examples: Examples | None
    """None where nothing is held out."""
    report: DataReport
    """Of the training rows."""
    data: DataSpec
    base_dir: Path

    @cached_property
    def validation(self) -> Rows | None:
        """The held-out conversations, to be answered; read when asked for."""
        return held_out(self.data, self.base_dir)


def load(
    data: DataSpec,
    tokenizer: Any,
    base_dir: Path,
    encode: Tokenised = encode_here,
) -> Loaded:
    """Tokenised data out of the cache, made where it is not there yet.

    The tokenizer is given data.chat_template, where that is set. Relative paths start from
    base_dir. Raises InvalidData that lists the first bad rows.
    """
    use_template(tokenizer, data, base_dir)
    train, report = _examples(data.sources, data, tokenizer, base_dir, Part.TRAIN, encode)
    validation = held_out_examples(data, tokenizer, base_dir, encode)
    return Loaded(train, validation, report, data, base_dir)


def held_out_examples(
    data: DataSpec, tokenizer: Any, base_dir: Path, encode: Tokenised = encode_here
) -> Examples | None:
    """The held-out rows tokenised; None where there are none. Raises InvalidData."""
    use_template(tokenizer, data, base_dir)
    sources = held_out_sources(data, base_dir)
    if not sources:
        return None
    return _examples(sources, data, tokenizer, base_dir, Part.HELD_OUT, encode)[0]


def held_out(data: DataSpec, base_dir: Path) -> Rows | None:
    """The held-out conversations, all in memory; None where there are none.

    Plain text asks nothing, so there are none of it. Raises InvalidData.
    """
    sources = held_out_sources(data, base_dir)
    if not sources:
        return None
    rows = _chained(sources, data, base_dir)
    found = collect(rows, held_out_label(data), data)
    return found if found.items else None


def _examples(
    sources: Sequence[SourceSpec],
    data: DataSpec,
    tokenizer: Any,
    base_dir: Path,
    part: Part,
    encode: Tokenised,
) -> tuple[Examples, DataReport]:
    found = [
        (source, *cached(source, data, tokenizer, base_dir, part, encode)) for source in sources
    ]
    report = total(report for _, _, report in found)
    # Of a small source a ratio may hold out nothing; a source that is named must have rows.
    parts = [(store, source.weight) for source, store, _ in found if len(store)]
    for source, store, counts in found:
        if not parts or (not len(store) and not data.validation_ratio):
            raise _nothing(source, counts, data.validation_ratio if part is Part.HELD_OUT else 0)
    if len(parts) == 1:
        return parts[0][0], report
    return MixedExamples(parts), report


def _nothing(source: SourceSpec, counts: DataReport, ratio: float) -> InvalidData:
    if ratio and not counts.rows:
        return none_held_out(source.source, ratio)
    return InvalidData(
        f"no rows: of {counts.rows} in all, {counts.skipped} cannot be used and {counts.dropped} "
        "are longer than data.max_length" + "".join(f"\n{line}" for line in counts.problems[:1]),
        file=source.source,
        hint="write rows in a shape of docs/datasets.md, one a line; raise data.max_length, or "
        "lower data.validation_ratio where it leaves none",
    )


def _chained(
    sources: Iterable[SourceSpec], data: DataSpec, base_dir: Path
) -> Iterator[PlacedRow | Fault]:
    for source in sources:
        yield from held_out_rows(source, data, base_dir)
