"""What a row of a batch is made of: one row of the data, or several that fit together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Row numbers of the data."""


@dataclass(frozen=True)
class Units:
    """The units of one epoch in order; unit i is rows[bounds[i]:bounds[i + 1]]."""

    rows: Rows
    bounds: Rows

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, unit: int) -> Rows:
        return self.rows[self.bounds[unit] : self.bounds[unit + 1]]


def one_by_one(rows: Rows) -> Units:
    """Each row alone."""
    return Units(rows, np.arange(len(rows) + 1))


def best_fit(rows: Rows, lengths: NDArray[np.int32], capacity: int) -> Units:
    """Best-fit decreasing bin packing (Johnson, 1974): few units of at most `capacity` tokens.

    Longest first, each into the fullest unit that it fits; no row is cut. Among rows of one length
    the order given decides, so that shuffled rows meet others in every epoch. Takes time linear in
    the number of rows.
    """
    sizes = lengths[rows]
    packs: list[list[int]] = []
    by_room: dict[int, list[int]] = {}
    rooms = 0  # bit r is set where a pack with room for r more tokens is open
    for place in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[place])
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            pack = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, pack = capacity, len(packs)
            packs.append([])
        packs[pack].append(place)
        left = room - size
        by_room.setdefault(left, []).append(pack)
        rooms |= 1 << left
    return _units([rows[pack] for pack in packs])


def shuffle(units: Units, generator: np.random.Generator) -> Units:
    """The same units in another order."""
    return _units([units[int(i)] for i in generator.permutation(len(units))])


def group_by_length(
    units: Units, lengths: NDArray[np.int32], batch: int, generator: np.random.Generator
) -> Units:
    """Reorder shuffled units so that those of a batch are of like length.

    Sorting is within stretches of 50 batches, and batches are shuffled again, so that the length
    does not follow from the time. A short batch stays last: the next epoch completes it.
    """
    sizes = np.add.reduceat(lengths[units.rows], units.bounds[:-1])
    order: list[int] = []
    for start in range(0, len(units), 50 * batch):
        near = np.arange(start, min(start + 50 * batch, len(units)))
        near = near[np.argsort(-sizes[near], kind="stable")]
        full = len(near) // batch
        batches = near[: full * batch].reshape(full, batch)[generator.permutation(full)]
        order += [*batches.ravel().tolist(), *near[full * batch :].tolist()]
    return _units([units[i] for i in order])


def _units(parts: Sequence[Rows]) -> Units:
    bounds = np.cumsum([0, *map(len, parts)])
    return Units(np.fromiter(chain.from_iterable(parts), np.int64, int(bounds[-1])), bounds)
