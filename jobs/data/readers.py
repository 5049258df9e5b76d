"""Files of each format to records, one after the other, in bounded memory and with their places.

json, jsonl, csv and txt are read strictly and by line, so that a bad row is named and the next one
is read all the same; parquet and arrow by pyarrow, a batch of rows at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Final, TypeAlias

from raylora.errors import InvalidData
from raylora.jobs.data.arrow_rows import arrow_rows, parquet_rows
from raylora.jobs.data.csv_rows import csv_rows
from raylora.jobs.data.json_rows import json_rows, jsonl_rows
from raylora.jobs.data.lines import numbered, opened, suffix_of, text_of
from raylora.jobs.data.records import BadLine, Fault, Found, Place, Record


def read(path: str) -> Iterator[Found]:
    """Yield the rows of one file, local or at an fsspec URL, in file order.

    A row that cannot be parsed is a Fault. Raises InvalidData for a file that cannot be read, is
    of no known format, or is broken in a way that hides where its next row begins.
    """
    suffix = suffix_of(path)
    with opened(path) as file:
        if suffix not in READERS:
            raise InvalidData(
                f"no known format: the name ends with {suffix or 'no suffix'}",
                file=path,
                hint=f"name it by its format, one of: {', '.join(READERS)}",
            )
        yield from READERS[suffix](file, path)


def _txt_rows(file: BinaryIO, path: str) -> Iterator[Found]:
    """One row a line, in the column text; blank lines are left out."""
    for number, line in numbered(file):
        if line.isspace():
            continue
        place = Place(path, number)
        try:
            yield Record(place, {"text": text_of(line).rstrip("\r\n")})
        except BadLine as problem:
            yield Fault(place, problem)


Reader: TypeAlias = Callable[[BinaryIO, str], Iterator[Found]]

READERS: Final[Mapping[str, Reader]] = {
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".txt": _txt_rows,
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
    ".feather": arrow_rows,
}
"""By the suffix of the name, that of a compression left out."""
