"""What the rows of a source are as tokens, under the settings of the spec."""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from raylora.config.data_spec import DataSpec, Truncation
from raylora.jobs.check.histogram import Bucket, histogram
from raylora.jobs.check.sample import Sample
from raylora.jobs.check.scan import Part
from raylora.jobs.check.spans import Span, spans
from raylora.jobs.data.encode import EncodedRow, Encoder, fitted
from raylora.jobs.data.faults import MAX_PROBLEMS
from raylora.jobs.data.records import BadLine, Fault, Place
from raylora.jobs.data.rows import PlacedRow

PERCENTILES: Final = (50, 90, 99)
WORST: Final = 5
_UNLIMITED: Final = 1 << 40


@dataclass(frozen=True)
class Measured:
    """A row in tokens."""

    place: Place
    tokens: int
    """Before truncation."""
    supervised: int
    """After it."""

    @property
    def share(self) -> float:
        """Of its tokens that are learnt."""
        return self.supervised / self.tokens


@dataclass(frozen=True)
class Preview:
    """A row as the model gets it; the first of them where it becomes several."""

    place: Place
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class TokenReport:
    """Rows of a source as tokens."""

    source: str
    part: str
    """train or validation."""
    rows: int
    """Rows tokenised."""
    is_all: bool
    tokens: int
    """Before truncation."""
    supervised: int
    """After it."""
    percentiles: dict[str, int]
    histogram: tuple[Bucket, ...]
    too_long: int
    """Rows of more tokens than data.max_length."""
    unsupervised: int
    """Rows of which truncation leaves nothing to learn."""
    unusable: int
    """Rows that the chat template does not take, or that have no answer of any weight."""
    longest: tuple[Measured, ...]
    least_supervised: tuple[Measured, ...]
    """By share of the row."""
    preview: tuple[Preview, ...]


@dataclass
class _Tally:
    """Adds up rows as they are tokenised, four bytes a row."""

    lengths: "array[int]" = field(default_factory=lambda: array("i"))
    supervised: int = 0
    too_long: int = 0
    unsupervised: int = 0
    unusable: int = 0
    refused: list[Fault] = field(default_factory=list[Fault])
    """The first of the rows that training would not take."""
    longest: Sample[Measured] = field(default_factory=lambda: Sample(WORST, WORST))
    least_supervised: Sample[Measured] = field(default_factory=lambda: Sample(WORST, WORST))
    preview: list[Preview] = field(default_factory=list[Preview])


class TokenCheck:
    """Tokenises rows whatever their length, and asks what training would make of each."""

    def __init__(self, tokenizer: Any, data: DataSpec, previews: int) -> None:
        """tokenizer: with the chat template of the spec."""
        self._tokenizer = tokenizer
        self._data = data
        self._previews = previews
        # The length of a row that is refused for it is shown all the same.
        self._encoder = Encoder(tokenizer, data.model_copy(update={"max_length": _UNLIMITED}))

    def report(
        self,
        part: Part,
        rows: Iterable[PlacedRow],
        longest: Iterable[PlacedRow],
        is_all: bool,
    ) -> tuple[TokenReport, list[Fault]]:
        """What is said of rows of a part, and the first ones that training would not take.

        longest: the longest rows of the part, told of in any case; is_all: whether rows has them.
        """
        tally = self._tallied(rows)
        worst = self._tallied(longest) if not is_all else tally
        lengths = np.frombuffer(tally.lengths, np.int32)
        report = TokenReport(
            source=part.source.source,
            part=part.name,
            rows=len(lengths) + tally.unusable,
            is_all=is_all,
            tokens=int(lengths.sum(dtype=np.int64)),
            supervised=tally.supervised,
            percentiles={str(share): _percentile(lengths, share) for share in PERCENTILES},
            histogram=histogram(lengths),
            too_long=tally.too_long,
            unsupervised=tally.unsupervised,
            unusable=tally.unusable,
            longest=_sorted(worst.longest, key=lambda row: -row.tokens),
            least_supervised=_sorted(tally.least_supervised, key=lambda row: row.share),
            preview=tuple(tally.preview),
        )
        refused = {str(fault.place): fault for fault in [*tally.refused, *worst.refused]}
        return report, list(refused.values())

    def _tallied(self, rows: Iterable[PlacedRow]) -> _Tally:
        tally = _Tally()
        for row in self._encoder.encode(rows):
            if isinstance(row, Fault):
                tally.unusable += 1
                _refuse(tally, row)
            else:
                self._add(tally, row)
        return tally

    def _add(self, tally: _Tally, row: EncodedRow) -> None:
        try:
            parts = fitted(row.place, row.examples, self._data).examples
        except BadLine as problem:
            parts = ()
            # Where rows that are too long are an error, that is what is wrong with this one.
            tally.unsupervised += self._data.truncation is not Truncation.ERROR
            _refuse(tally, Fault(row.place, problem))
        supervised = sum(part.supervised_tokens for part in parts)
        tally.lengths.append(row.length)
        tally.supervised += supervised
        tally.too_long += row.length > self._data.max_length
        measured = Measured(row.place, row.length, supervised)
        tally.longest.offer(-row.length, measured, 1)
        tally.least_supervised.offer(measured.share, measured, 1)
        if len(tally.preview) < self._previews:
            shown = (*parts, *row.examples)[0]
            tally.preview.append(Preview(row.place, spans(self._tokenizer, shown)))


def _refuse(tally: _Tally, fault: Fault) -> None:
    if len(tally.refused) < MAX_PROBLEMS:
        tally.refused.append(fault)


def _percentile(lengths: npt.NDArray[np.int32], share: int) -> int:
    return int(np.percentile(lengths, share, method="higher")) if len(lengths) else 0


def _sorted(rows: Iterable[Measured], key: Callable[[Measured], float]) -> tuple[Measured, ...]:
    return tuple(sorted(rows, key=key))
