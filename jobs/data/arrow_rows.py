"""Parquet and arrow files to records, a batch of rows at a time."""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

from raylora.errors import InvalidData
from raylora.jobs.data.records import Found, Place, Record

BATCH_ROWS: Final = 256
"""Rows in memory as Python objects at a time."""


def parquet_rows(file: BinaryIO, path: str) -> Iterator[Found]:
    from pyarrow import parquet

    def batches() -> Iterator[Any]:
        arrow: Any = parquet
        yield from arrow.ParquetFile(file).iter_batches(batch_size=BATCH_ROWS)

    yield from _tabular(batches, path)


def arrow_rows(file: BinaryIO, path: str) -> Iterator[Found]:
    from pyarrow import ipc

    def batches() -> Iterator[Any]:
        arrow: Any = ipc
        magic = file.read(6)
        file.seek(0)
        if magic == b"ARROW1":
            table = arrow.open_file(file)
            tables = (table.get_batch(i) for i in range(table.num_record_batches))
        else:
            tables = iter(arrow.open_stream(file))
        for batch in tables:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)

    yield from _tabular(batches, path)


def _tabular(batches: Callable[[], Iterator[Any]], path: str) -> Iterator[Found]:
    from pyarrow import ArrowException

    number = 0
    try:
        for batch in batches():
            rows: list[dict[str, Any]] = batch.to_pylist()
            for fields in rows:
                number += 1
                yield Record(Place(path, number), fields)
    except (ArrowException, UnicodeDecodeError) as error:
        raise InvalidData(
            f"cannot be read beyond row {number}: {str(error).splitlines()[0]:.300}",
            file=path,
            hint="write the file again, with pyarrow or pandas",
        ) from error
