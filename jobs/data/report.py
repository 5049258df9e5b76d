"""What became of the rows of a spec: counts, and the rows that were left out."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from raylora.jobs.data.encode import EncodedRow
from raylora.jobs.data.faults import MAX_PROBLEMS, Faults
from raylora.jobs.data.truncation import Fate


@dataclass(frozen=True)
class DataReport:
    """Counts over one or more sources. `rows` are all, also those that were left out."""

    rows: int = 0
    skipped: int = 0
    """Rows that could not be used."""
    dropped: int = 0
    """Rows left out for their length."""
    truncated: int = 0
    split: int = 0
    """Rows of which several examples were made for their length."""
    spread: int = 0
    """Rows whose answers became examples of their own, for the template changes earlier ones."""
    unsupervised: int = 0
    """Parts of split rows that were left out, for they have no label."""
    examples: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    problems: tuple[str, ...] = ()
    """The first of the skipped rows: file:line: what is wrong."""

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "DataReport":
        """What as_dict said."""
        counts = {name: value for name, value in said.items() if name != "problems"}
        return cls(**counts, problems=tuple(said["problems"]))

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def total(reports: Iterable[DataReport]) -> DataReport:
    """The sum of reports."""
    found = list(reports)
    sums = {
        field.name: sum(getattr(report, field.name) for report in found)
        for field in fields(DataReport)
        if field.name != "problems"
    }
    problems = tuple(problem for report in found for problem in report.problems)
    return DataReport(**sums, problems=problems[:MAX_PROBLEMS])


class Counter:
    """Counts rows as they are encoded."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, row: EncodedRow) -> None:
        """Count a row that could be used."""
        counts = self._counts
        counts["rows"] += 1
        counts["dropped"] += row.fate is Fate.DROPPED
        counts["truncated"] += row.fate is Fate.CUT
        counts["split"] += row.fate is Fate.SPLIT
        counts["spread"] += row.sequences > 1
        counts["unsupervised"] += row.unsupervised
        counts["examples"] += len(row.examples)
        counts["tokens"] += sum(map(len, row.examples))
        counts["supervised_tokens"] += sum(one.supervised_tokens for one in row.examples)

    def report(self) -> DataReport:
        """The counts, with the rows that could not be used."""
        used = replace(DataReport(), **self._counts)
        skipped = self._faults.count
        problems = self._faults.listed()
        return replace(used, rows=used.rows + skipped, skipped=skipped, problems=problems)
