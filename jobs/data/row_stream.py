"""An endless stream of rows of a spec's sources, which can begin at any place of it.

It passes over each source again and again, shuffled window by window; which source gives the next
row is drawn by weight. Which row is at which place depends on the seed and the place alone.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from raylora.config.data_spec import BadRows, DataSpec, SourceSpec
from raylora.jobs.data.faults import Faults
from raylora.jobs.data.records import BadLine, Fault, Found, Record
from raylora.jobs.data.rows import PlacedRow, no_rows
from raylora.jobs.data.shapes import Shaper
from raylora.jobs.data.sources import records

WINDOW: Final = 10_000
"""Rows of a source that are in memory and shuffled together."""

DRAWN: Final = 4096
"""Rows whose sources are drawn at a time."""


class RowStream:
    """Takes rows at places of the stream. Going on is quick, going back reads from the start."""

    def __init__(self, data: DataSpec, base_dir: Path, seed: int) -> None:
        """Raises InvalidData where a source cannot be read or has no row of a known shape."""
        self._sources = data.sources
        self._base_dir = base_dir
        self._seed = seed
        weights = np.array([source.weight for source in self._sources])
        self._shares = weights / weights.sum()
        self._shapers = [self._shaper(source, data) for source in self._sources]
        self._place = 0
        self._rows = [self._endless(number, 0) for number in range(len(self._sources))]

    def take(self, start: int, count: int) -> list[PlacedRow | Fault]:
        """The rows at the places start to start + count - 1; those of no use are Faults."""
        if start != self._place:
            self._seek(start)
        self._place = start + count
        return [next(self._rows[number]) for number in self._drawn(start, start + count)]

    def _seek(self, place: int) -> None:
        taken = np.zeros(len(self._sources), np.int64)
        for start in range(0, place, DRAWN):
            drawn = self._drawn(start, min(start + DRAWN, place))
            taken += np.bincount(drawn, minlength=len(taken))
        self._rows = [self._endless(number, int(skip)) for number, skip in enumerate(taken)]

    def _drawn(self, start: int, stop: int) -> Any:
        """Numbers of the sources that give the rows at these places."""
        blocks = range(start // DRAWN, (stop - 1) // DRAWN + 1)
        drawn = [
            np.random.default_rng((self._seed, block)).choice(
                len(self._shares), DRAWN, p=self._shares
            )
            for block in blocks
        ]
        first = blocks.start * DRAWN
        return np.concatenate(drawn)[start - first : stop - first]

    def _endless(self, number: int, skip: int) -> Iterator[PlacedRow | Fault]:
        """Rows of one source for ever, without the first `skip`."""
        shaper, passed = self._shapers[number], 0
        while True:
            found = records(self._sources[number], self._base_dir, streaming=True)
            for window in range(2**63):
                if skip >= WINDOW:
                    size = sum(1 for _ in islice(found, WINDOW))
                    skip -= size
                else:
                    rows = list(islice(found, WINDOW))
                    size = len(rows)
                    seeds = (self._seed, number, passed, window)
                    for row in np.random.default_rng(seeds).permutation(size)[skip:]:
                        yield _shaped(rows[row], shaper)
                    skip = max(0, skip - size)
                if size < WINDOW:
                    break
            passed += 1

    def _shaper(self, source: SourceSpec, data: DataSpec) -> Shaper:
        """Knows the shape from the first row of the source, whichever row comes first."""
        shaper, faults = Shaper(source, data), Faults(BadRows.SKIP)
        for found in records(source, self._base_dir, streaming=True):
            row = _shaped(found, shaper)
            if not isinstance(row, Fault):
                return shaper
            faults.add(row)
        raise no_rows(source.source, faults)


def _shaped(found: Found, shaper: Shaper) -> PlacedRow | Fault:
    if not isinstance(found, Record):
        return found
    try:
        return PlacedRow(found.place, shaper.convert(found.fields))
    except BadLine as problem:
        return Fault(found.place, problem)
