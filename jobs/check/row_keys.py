"""A number for each row, so that equal rows are found in a file of any size."""

from array import array
from collections.abc import Hashable
from typing import Final

import numpy as np
import numpy.typing as npt

from raylora.jobs.data.records import Place

MOST: Final = 4_000_000
"""Rows remembered, 16 bytes each."""

_FILE_SHIFT: Final = 40
_WORD: Final = 2**64 - 1


class RowKeys:
    """Keys and places of the rows of a source.

    Beyond MOST rows only every second key is remembered, then every fourth, and so on: equal rows
    have equal keys, so that all copies of a row are remembered or none.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._keys = array("Q")
        self._places = array("Q")
        self._files: list[str] = []
        self._left_out = 0
        self.rows = 0
        self.one_in = 1
        """One key in so many is remembered."""

    def add(self, content: Hashable, place: Place) -> None:
        """Note a row by whatever hashable content makes it equal to another."""
        self.rows += 1
        key = hash(content) & _WORD
        if key & self._left_out:
            return
        if not self._files or self._files[-1] != place.file:
            self._files.append(place.file)
        self._keys.append(key)
        self._places.append((len(self._files) - 1) << _FILE_SHIFT | place.line)
        if len(self._keys) > self._most:
            self._halve()

    def place(self, index: int) -> Place:
        """Where the row of a remembered key stands."""
        packed = self._places[index]
        return Place(self._files[packed >> _FILE_SHIFT], packed & (2**_FILE_SHIFT - 1))

    def values(self) -> npt.NDArray[np.uint64]:
        """The keys remembered, in the order of the rows."""
        return np.frombuffer(self._keys, np.uint64)

    def _halve(self) -> None:
        self._left_out = self._left_out << 1 | 1
        self.one_in *= 2
        kept = np.frombuffer(self._keys, np.uint64) & np.uint64(self._left_out) == 0
        self._keys = array("Q", np.frombuffer(self._keys, np.uint64)[kept].tobytes())
        self._places = array("Q", np.frombuffer(self._places, np.uint64)[kept].tobytes())
