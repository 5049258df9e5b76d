"""CSV and TSV files to records: a header line, then rows of as many fields."""

import csv
from collections.abc import Iterator
from typing import BinaryIO

from raylora.errors import InvalidData
from raylora.jobs.data.lines import MAX_LINE_BYTES, numbered, suffix_of, text_of
from raylora.jobs.data.records import BadLine, Fault, Found, Place, Record


def csv_rows(file: BinaryIO, path: str) -> Iterator[Found]:
    delimiter = "\t" if suffix_of(path) == ".tsv" else ","
    csv.field_size_limit(MAX_LINE_BYTES)
    rows = csv.reader(_texts(file, path), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for row in rows:
            place, line = Place(path, line), rows.line_num + 1
            if not row:
                continue
            if header is None:
                header = _header(row, place)
            elif len(row) != len(header):
                yield Fault(place, _wrong_width(row, header))
            else:
                yield Record(place, dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise InvalidData(
            f"not CSV: {error}",
            file=path,
            line=line,
            hint="quote fields that hold quotes or line breaks, and double the quotes inside",
        ) from error


def _texts(file: BinaryIO, path: str) -> Iterator[str]:
    """Lines as the csv module wants them. A bad one hides the rows around it: an error."""
    for number, line in numbered(file):
        try:
            text = text_of(line)
        except BadLine as problem:
            raise InvalidData(str(problem), file=path, line=number, hint=problem.hint) from problem
        yield text.removeprefix("\ufeff") if number == 1 else text


def _header(row: list[str], place: Place) -> list[str]:
    if len(set(row)) < len(row) or "" in row:
        raise InvalidData(
            f"the first line must name the columns, each once; it is: {', '.join(row):.200}",
            file=place.file,
            line=place.line,
            hint="write a first line such as prompt,completion",
        )
    return row


def _wrong_width(row: list[str], header: list[str]) -> BadLine:
    return BadLine(
        f"{len(row)} fields where the first line names {len(header)} columns",
        "quote fields that hold commas or line breaks",
    )
