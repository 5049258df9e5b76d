"""Bytes of a file, local or remote, compressed or not, and its lines in bounded memory."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, cast

from raylora.errors import InvalidData
from raylora.jobs.data.records import BadLine

MAX_LINE_BYTES: Final = 1_000_000
"""About 250,000 tokens, more than any context length trained here. A line is held in memory as a
whole, so without a limit one line of a gigabyte would be too."""

COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")

REMOTE: Final = "://"


def suffix_of(path: str) -> str:
    """.jsonl of rows.jsonl and of rows.JSONL.gz."""
    name = PurePosixPath(path)
    if name.suffix.lower() in COMPRESSED:
        name = name.with_suffix("")
    return name.suffix.lower()


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The decompressed bytes of a path or fsspec URL.

    Raises InvalidData, also for what goes wrong while the caller reads.
    """
    try:
        with _raw(path) as raw:
            yield _decompressed(raw, PurePosixPath(path).suffix.lower())
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise InvalidData(
            f"the compressed file is damaged: {error}", file=path, hint="compress it again"
        ) from error
    except (OSError, ImportError) as error:  # fsspec: a scheme whose package is missing
        raise InvalidData(
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            file=path,
            hint="give a file, a glob, a folder, an fsspec URL, hub:ORG/NAME, or a data set that "
            "ships with raylora such as bundled:home_requests/train",
        ) from error


def numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield all lines with their numbers, each cut just past MAX_LINE_BYTES."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            _skip_rest(file, line)
        yield number, line


def text_of(line: bytes) -> str:
    """Decode a line. Raises BadLine where it is too long or not UTF-8."""
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(
            f"longer than {MAX_LINE_BYTES} bytes", "write one row a line; split or drop long rows"
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLine(
            f"not UTF-8: byte 0x{line[error.start]:02x} at offset {error.start}",
            "save the file as UTF-8",
        ) from error


@contextmanager
def _raw(path: str) -> Iterator[BinaryIO]:
    if REMOTE not in path:
        with open(path, "rb") as file:
            yield file
        return
    import fsspec

    files: Any = fsspec
    with files.open(path, "rb") as file:
        yield file


def _decompressed(raw: BinaryIO, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if suffix == ".bz2":
        return cast(BinaryIO, bz2.BZ2File(raw))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.LZMAFile(raw))
    if suffix == ".zst":
        import pyarrow

        arrow: Any = pyarrow
        return io.BufferedReader(arrow.CompressedInputStream(arrow.PythonFile(raw), "zstd"))
    return raw


def _skip_rest(file: BinaryIO, piece: bytes) -> None:
    while piece and not piece.endswith(b"\n"):
        piece = file.readline(MAX_LINE_BYTES)
