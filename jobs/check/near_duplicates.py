"""Which of many texts nearly equal one another, without comparing each with each (LSH)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from raylora.jobs.check.minhash import Signatures, band_keys, similarity

THRESHOLD: Final = 0.8
"""Estimated Jaccard similarity from which two texts are near duplicates."""

_Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Near:
    """Texts that nearly equal another one, the most alike first."""

    texts: _Places
    others: _Places
    """For each of the texts, the most similar one that it was compared with."""
    similarities: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.texts)


def within(signatures: Signatures) -> Near:
    """Texts that nearly equal an earlier one: all but the first of each group."""
    pairs: list[_Places] = []
    for keys in band_keys(signatures):
        order = np.argsort(keys, kind="stable")
        is_first = np.append(True, keys[order][1:] != keys[order][:-1])[: len(order)]
        bucket = np.cumsum(is_first) - 1
        later = np.flatnonzero(~is_first)
        # A text is compared with the first of its bucket and with the one before it: linear, where
        # all pairs of a bucket of boilerplate would be quadratic.
        for earlier in (later - 1, np.flatnonzero(is_first)[bucket[later]]):
            pairs.append(np.stack([order[later], order[earlier]], axis=1))
    return _best(pairs, signatures, signatures)


def across(signatures: Signatures, others: Signatures) -> Near:
    """Texts that nearly equal one of others."""
    if not len(others):
        return _best([], signatures, others)
    pairs: list[_Places] = []
    for keys, other_keys in zip(band_keys(signatures), band_keys(others), strict=True):
        order = np.argsort(other_keys, kind="stable")
        ordered = other_keys[order]
        # The first and the last of the bucket, for the reason above.
        for place in (np.searchsorted(ordered, keys), np.searchsorted(ordered, keys, "right") - 1):
            place = np.clip(place, 0, len(ordered) - 1)
            found = np.flatnonzero(ordered[place] == keys)
            pairs.append(np.stack([found, order[place[found]]], axis=1))
    return _best(pairs, signatures, others)


def _best(pairs: Sequence[_Places], signatures: Signatures, others: Signatures) -> Near:
    """Keep for each text its most similar partner, where that is similar enough."""
    candidates = np.unique(np.concatenate([np.empty((0, 2), np.intp), *pairs]), axis=0)
    alike = similarity(signatures[candidates[:, 0]], others[candidates[:, 1]])
    order = np.argsort(-alike, kind="stable")
    order = order[alike[order] >= THRESHOLD]
    best = order[np.sort(np.unique(candidates[order, 0], return_index=True)[1])]
    return Near(candidates[best, 0], candidates[best, 1], alike[best])
