"""Examples on disk, written one after the other and mapped into memory to be read.

A directory of flat files, an entry a token (tokens, mask, where rows have some: weights) or an
entry a row (ends, supervised), and index.json with their types, sizes and hashes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from raylora.jobs.data.examples import (
    IGNORED,
    Example,
    Lengths,
    Order,
    Weights,
    bytes_of,
    shuffled,
)

INDEX: Final = "index.json"
TYPES: Final = {
    "tokens": "<u4",
    "mask": "|b1",
    "weights": "<f4",
    "ends": "<i8",
    "supervised": "<f8",
}
"""File to the type of its entries."""


@dataclass(frozen=True)
class Stored:
    """What index.json says."""

    examples: int
    digest: str
    sha256: Mapping[str, str]
    notes: Mapping[str, Any]
    """What the writer wanted kept beside the examples."""


class StoreWriter:
    """Writes a store into an empty directory; what it holds in memory does not grow."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = {name: (directory / name).open("wb") for name in TYPES}
        self._hashes = {name: hashlib.sha256() for name in TYPES}
        self._digest = hashlib.sha256()
        self._tokens = 0
        self._examples = 0
        self._unweighted = 0
        """Leading tokens whose weights, all 1, are not written yet."""
        self._has_weights = False

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def add(self, example: Example) -> None:
        """Append an example."""
        self._tokens += len(example)
        self._examples += 1
        self._digest.update(bytes_of(example))
        self._write("tokens", np.array(example.input_ids))
        self._write("mask", np.array(example.labels) != IGNORED)
        self._write("ends", np.array([self._tokens]))
        self._write("supervised", np.array([example.supervised_weight]))
        self._add_weights(example)

    def finish(self, notes: Mapping[str, Any]) -> None:
        """Write index.json, which makes the directory a store."""
        for file in self._files.values():
            file.flush()
        hashes = {name: found.hexdigest() for name, found in self._hashes.items()}
        index = Stored(self._examples, self._digest.hexdigest(), hashes, notes)
        (self._directory / INDEX).write_text(json.dumps(vars(index)) + "\n", encoding="utf-8")

    def _add_weights(self, example: Example) -> None:
        """Nothing is written until the first example that has weights."""
        if example.weights is None and not self._has_weights:
            return
        if not self._has_weights:
            self._has_weights = True
            for start in range(0, self._tokens - len(example), _BLOCK):
                self._write("weights", np.ones(min(_BLOCK, self._tokens - len(example) - start)))
        ones = [1.0] * len(example)
        self._write("weights", np.array(ones if example.weights is None else example.weights))

    def _write(self, name: str, values: Any) -> None:
        raw = values.astype(TYPES[name]).tobytes()
        self._files[name].write(raw)
        self._hashes[name].update(raw)


_BLOCK: Final = 1 << 20


class StoredExamples:
    """The examples of a store."""

    def __init__(self, directory: Path, index: Stored) -> None:
        self.digest = index.digest
        self.notes = index.notes
        self._ends = _mapped(directory, "ends")
        self._tokens = _mapped(directory, "tokens")
        self._mask = _mapped(directory, "mask")
        self._weights = _mapped(directory, "weights")
        self.lengths: Lengths = np.diff(self._ends, prepend=0).astype(np.int32)
        self.supervised: Weights = np.asarray(_mapped(directory, "supervised"), np.float64)

    @property
    def epoch_size(self) -> int:
        """Every row once."""
        return len(self)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Example:
        stop = int(self._ends[index])
        part = slice(stop - int(self.lengths[index]), stop)
        tokens = np.asarray(self._tokens[part], np.int64)
        labels = np.where(self._mask[part], tokens, IGNORED)
        weights = self._weights[part]
        plain = not len(weights) or bool((weights == 1).all())
        return Example(tokens.tolist(), labels.tolist(), None if plain else weights.tolist())

    def epoch_order(self, epoch: int, seed: int) -> Order:
        """Every row once, shuffled."""
        return shuffled(len(self), seed, epoch)


def open_store(directory: Path) -> StoredExamples:
    """Map a store. Raises OSError, ValueError or KeyError where it is not whole."""
    index = Stored(**json.loads((directory / INDEX).read_text(encoding="utf-8")))
    for name in TYPES:
        with (directory / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != index.sha256[name]:
                raise ValueError(f"{directory / name} is not what was written")
    return StoredExamples(directory, index)


def _mapped(directory: Path, name: str) -> Any:
    path = directory / name
    if not path.stat().st_size:  # which cannot be mapped
        return np.empty(0, TYPES[name])
    return np.memmap(path, TYPES[name], mode="r")
