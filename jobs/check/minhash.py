"""MinHash signatures of texts: how alike two texts are, from a few numbers each.

One hash per piece of text, spread over bins of which each keeps its minimum (Li, Owen and Zhang,
2012); empty bins copy full ones (Shrivastava, 2017). The share of equal numbers in two signatures
estimates the Jaccard similarity of the texts' sets of five-byte pieces, give or take 0.06.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Signatures = npt.NDArray[np.uint32]
"""[texts, BINS]"""

BANDS: Final = 12
BINS_PER_BAND: Final = 5
BINS: Final = BANDS * BINS_PER_BAND
"""Texts of similarity 0.8 agree in a whole band at least once with a probability of 0.99, texts of
similarity 0.5 with 0.32."""

PIECE: Final = 5
"""Bytes. Words would make a short request a set of five, too few to compare."""
MAX_TEXT: Final = 4096
"""Characters; what lies behind is not compared."""

_CHUNK_BYTES: Final = 256 * 1024
"""Texts hashed at once: what is in work stays in the processor's cache."""
_EMPTY: Final = np.uint32(0xFFFFFFFF)


def normal(text: str) -> bytes:
    """What of a text is compared: lower case, one space for any white space, not too much."""
    cut = " ".join(text[:MAX_TEXT].lower().split())
    return cut.encode("utf-8", "replace").ljust(PIECE)


def sign(texts: Sequence[bytes]) -> Signatures:
    """Signatures of texts that `normal` made."""
    parts = [_sign_chunk(chunk) for chunk in _chunks(texts)]
    return np.concatenate(parts) if parts else np.empty((0, BINS), np.uint32)


def band_keys(signatures: Signatures) -> npt.NDArray[np.uint64]:
    """[BANDS, texts]: two texts whose signatures agree in a band have the same key there."""
    bands = signatures.reshape(-1, BANDS, BINS_PER_BAND).astype(np.uint64)
    keys = np.zeros(bands.shape[:2], np.uint64)
    for column in range(BINS_PER_BAND):
        keys = _mix(keys ^ bands[:, :, column])
    return np.ascontiguousarray(keys.T)


def similarity(left: Signatures, right: Signatures) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity of left[i] and right[i]."""
    return (left == right).mean(axis=1)


def _chunks(texts: Sequence[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _sign_chunk(texts: Sequence[bytes]) -> Signatures:
    hashes, rows = _pieces(texts)
    bins = ((hashes >> np.uint64(32)) * np.uint64(BINS)) >> np.uint64(32)
    signatures = np.full(len(texts) * BINS, _EMPTY)
    values = np.minimum(hashes.astype(np.uint32), _EMPTY - np.uint32(1))
    np.minimum.at(signatures, rows * BINS + bins.astype(np.intp), values)
    return _fill_empty(signatures.reshape(-1, BINS))


def _pieces(texts: Sequence[bytes]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
    """Hash of every piece of every text, and the number of the text it belongs to."""
    lengths = np.fromiter(map(len, texts), np.intp, len(texts))
    data = b"".join(texts)
    # The eight bytes from each place on, of which the lowest five are the piece.
    words = np.ndarray(len(data), "<u8", data + bytes(8), strides=(1,))
    pieces = words & np.uint64(2 ** (8 * PIECE) - 1)
    # A piece that begins in one text and ends in the next belongs to neither.
    whole = np.ones(len(data), np.bool_)
    whole[(np.cumsum(lengths)[:, None] - np.arange(1, PIECE)).ravel()] = False
    return _mix(pieces[whole]), np.repeat(np.arange(len(texts)), lengths - PIECE + 1)


def _fill_empty(signatures: Signatures) -> Signatures:
    """Let each empty bin copy a full one, all texts asking for the same ones in the same order."""
    full = signatures != _EMPTY
    rows, bins = np.nonzero(~full)
    attempt = 0
    while len(rows):
        attempt += 1
        drawn = _mix(bins.astype(np.uint64) + np.uint64(attempt * BINS))
        donors = (drawn % np.uint64(BINS)).astype(np.intp)
        found = full[rows, donors]
        signatures[rows[found], bins[found]] = signatures[rows[found], donors[found]]
        rows, bins = rows[~found], bins[~found]
    return signatures


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread each value over all 64 bits (the finalizer of MurmurHash3)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))
