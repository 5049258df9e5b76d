"""What `raylora data check` says: sources, tokens, leakage, and what training would refuse."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raylora.config.data_spec import BadRows, DataSpec
from raylora.jobs.check.leakage import Leakage, leakage
from raylora.jobs.check.parts import held_out, training
from raylora.jobs.check.scan import Limits, Scan, scan
from raylora.jobs.check.source_report import Problem, SourceReport, problem, source_report
from raylora.jobs.check.token_report import TokenCheck, TokenReport
from raylora.jobs.data.chat_template import use_template
from raylora.jobs.data.records import Fault
from raylora.jobs.data.rows import PlacedRow, no_rows, stream

COMPARED: Final = (20_000, 32_000_000)
"""Rows of a source that are compared for likeness, and their characters: a second of work."""
COMPARED_OF_ALL: Final = (500_000, 256_000_000)
"""Where every row was asked for: half a gigabyte of memory."""


@dataclass(frozen=True)
class Options:
    """How much is looked at."""

    sample: int
    """Rows of a source to tokenise; 0 for none."""
    every_row: bool
    """Tokenise and compare all of them."""
    previews: int
    """Rows of a source shown token by token."""

    @property
    def tokenises(self) -> bool:
        """Whether a tokenizer is needed."""
        return self.every_row or self.sample > 0


@dataclass(frozen=True)
class Report:
    """What was found."""

    sources: tuple[SourceReport, ...]
    """Training sources, then held-out ones."""
    tokens: tuple[TokenReport, ...]
    """By source; none where no tokens were asked for."""
    leakage: tuple[Leakage, ...]
    """By held-out and training source; none where no rows are held out."""
    problems: tuple[Problem, ...]
    """The first rows at which training would stop."""


def check(
    data: DataSpec, base_dir: Path, options: Options, tokenizer: Callable[[], Any]
) -> Report:
    """Look at everything that the spec names as data.

    tokenizer: gives the base model's, if it is needed. Raises InvalidData for a source that cannot
    be read or has no row that can be used, InvalidConfig for columns or templates that are wrong.
    """
    texts, text_size = COMPARED_OF_ALL if options.every_row else COMPARED
    limits = Limits(options.sample, texts, text_size, prompts=data.holds_out)
    train = [_scanned(scan(part, data, base_dir, limits)) for part in training(data)]
    ratio = data.validation_ratio
    heldout = [
        _scanned(scan(part, data, base_dir, limits), ratio) for part in held_out(data, base_dir)
    ]
    scans = [*train, *heldout]
    reports = [source_report(found, base_dir) for found in scans]
    leaked = [leakage(held, part) for held in heldout for part in train]
    faults = [fault for found in scans for fault in found.faults.first]
    for found in scans:
        found.forget()
    tokens: list[TokenReport] = []
    if options.tokenises:
        checker = TokenCheck(use_template(tokenizer(), data, base_dir), data, options.previews)
        for found in scans:
            report, refused = _tokens(checker, found, data, base_dir, options)
            tokens.append(report)
            faults += refused
    stops = faults if data.bad_rows is BadRows.ERROR else []
    return Report(tuple(reports), tuple(tokens), tuple(leaked), tuple(map(problem, stops)))


def _scanned(found: Scan, ratio: float = 0.0) -> Scan:
    """Refuse a source that has nothing to look at."""
    if not found.good:
        raise no_rows(found.part.source.source, found.faults, ratio)
    return found


def _tokens(
    checker: TokenCheck, found: Scan, data: DataSpec, base_dir: Path, options: Options
) -> tuple[TokenReport, list[Fault]]:
    """Tokenise what was kept of a source, or all of it in another pass."""
    if options.every_row:
        return checker.report(found.part, _again(found, data, base_dir), found.longest, True)
    is_all = len(found.rows) == found.good
    return checker.report(found.part, found.rows, found.longest, is_all)


def _again(found: Scan, data: DataSpec, base_dir: Path) -> Iterator[PlacedRow]:
    for row in stream(found.part.source, data, base_dir):
        if not isinstance(row, Fault) and found.part.has(row.content):
            yield row
