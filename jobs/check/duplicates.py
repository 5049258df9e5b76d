"""Rows that equal others, within a source or in two of them."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from raylora.jobs.check.row_keys import RowKeys
from raylora.jobs.data.records import Place

EXAMPLES: Final = 5


@dataclass(frozen=True)
class Group:
    """Rows that are equal."""

    rows: int
    places: tuple[Place, ...]
    """Of the first few."""


@dataclass(frozen=True)
class Duplicates:
    """Rows that equal an earlier one."""

    rows: int
    """An estimate where `looked_at` is less than 1."""
    share: float
    looked_at: float
    """Share of the rows that were compared."""
    groups: tuple[Group, ...]
    """The largest ones."""


@dataclass(frozen=True)
class Pair:
    """A held-out row and the row of the training data that it equals."""

    heldout: Place
    train: Place


@dataclass(frozen=True)
class Shared:
    """Held-out rows that the training data has too."""

    rows: int
    share: float
    looked_at: float
    examples: tuple[Pair, ...]


def repeated(keys: RowKeys) -> Duplicates:
    """Rows of one source that equal an earlier one of it."""
    values = keys.values()
    ordered = np.sort(values)
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    counts = np.diff(np.append(starts, len(ordered)))
    copies = len(ordered) - len(starts)
    largest = np.argsort(-counts, kind="stable")[:EXAMPLES]
    groups = tuple(
        Group(int(counts[group]), _places(keys, values == ordered[starts[group]]))
        for group in largest
        if counts[group] > 1
    )
    share = copies / max(len(ordered), 1)
    return Duplicates(round(share * keys.rows), share, 1 / keys.one_in, groups)


def shared(heldout: RowKeys, train: RowKeys) -> Shared:
    """Rows of `heldout` that equal one of `train`."""
    # Both remember the keys whose lowest bits are 0, maybe one more bits than the other.
    one_in = max(heldout.one_in, train.one_in)
    remembered = np.flatnonzero(heldout.values() % np.uint64(one_in) == 0)
    values = heldout.values()[remembered]
    found = remembered[np.isin(values, train.values())]
    share = len(found) / max(len(values), 1)
    examples = tuple(
        Pair(
            heldout.place(int(i)),
            *_places(train, train.values() == heldout.values()[i], most=1),
        )
        for i in found[:EXAMPLES]
    )
    return Shared(round(share * heldout.rows), share, 1 / one_in, examples)


def _places(
    keys: RowKeys, chosen: npt.NDArray[np.bool_], most: int = EXAMPLES
) -> tuple[Place, ...]:
    return tuple(keys.place(int(index)) for index in np.flatnonzero(chosen)[:most])
