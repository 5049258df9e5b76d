"""JSON files to records: a list of objects, or objects however they are spread over lines."""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, cast

from pydantic_core import from_json

from raylora.errors import InvalidData
from raylora.jobs.data.kinds import kind
from raylora.jobs.data.lines import MAX_LINE_BYTES, numbered, text_of
from raylora.jobs.data.records import BadLine, Fault, Found, Place, Record

BLOCK_BYTES: Final = 1 << 18


def jsonl_rows(file: BinaryIO, path: str) -> Iterator[Found]:
    """One object a line; blank lines are left out."""
    for number, line in numbered(file):
        if line.isspace():
            continue
        place = Place(path, number)
        try:
            yield Record(place, _parsed(line))
        except BadLine as problem:
            yield Fault(place, problem)


def json_rows(file: BinaryIO, path: str) -> Iterator[Found]:
    """A list of objects, or objects one after the other. Raises InvalidData where one is broken.

    As much of the file is held as the longest object takes, MAX_LINE_BYTES at most.
    """
    decoder = json.JSONDecoder()
    text, start, line, at_end = "", 0, 1, False
    while True:
        start, line = _skip(text, start, line)
        try:
            value, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if start == len(text) and at_end:
                return
            if at_end or len(text) - start > MAX_LINE_BYTES:
                raise _broken(error, path, line + text.count("\n", start, error.pos)) from error
        except (RecursionError, ValueError) as error:
            deep = _too_deep()
            raise InvalidData(str(deep), file=path, line=line, hint=deep.hint) from error
        else:
            yield _found(value, Place(path, line))
            line += text.count("\n", start, end)
            start = end
            continue
        piece = file.read(BLOCK_BYTES)
        at_end = not piece
        place = Place(path, line + text.count("\n", start))
        text, start = text[start:] + _decoded(file, piece, place), 0


def _parsed(line: bytes) -> dict[str, Any]:
    """One object, by pydantic's parser: it takes a third of the time that json takes."""
    try:
        value = from_json(line) if len(line) <= MAX_LINE_BYTES else _explained(line)
    except ValueError:
        value = _explained(line)
    return _object(value)


def _explained(line: bytes) -> object:
    """By json: it takes halves of surrogate pairs as well, and says better what is wrong."""
    text = text_of(line)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadLine(
            f"not JSON: {error.msg} at column {error.colno}",
            "write one complete JSON object a line",
        ) from error
    except (RecursionError, ValueError) as error:  # nesting; integers of thousands of digits
        raise _too_deep() from error


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadLine(
            f"{kind(value)} where an object belongs",
            'write an object for each row, such as {"messages": [...]}',
        )
    return cast(dict[str, Any], value)


def _too_deep() -> BadLine:
    return BadLine(
        "JSON nested too deep, or with a number too long to read",
        "write each row as a flat object, such as one list of messages",
    )


def _skip(text: str, start: int, line: int) -> tuple[int, int]:
    """Go past what is between objects."""
    gap = _GAP.match(text, start)
    end = gap.end() if gap else start
    return end, line + text.count("\n", start, end)


_GAP: Final = re.compile(r"[\s,\[\]\ufeff]*")


def _found(value: object, place: Place) -> Found:
    try:
        return Record(place, _object(value))
    except BadLine as problem:
        return Fault(place, problem)


def _broken(error: json.JSONDecodeError, path: str, line: int) -> InvalidData:
    return InvalidData(
        f"no complete JSON value within {MAX_LINE_BYTES} bytes: {error.msg}",
        file=path,
        line=line,
        hint="write a list of objects, or one object a line in a .jsonl file",
    )


def _decoded(file: BinaryIO, piece: bytes, place: Place) -> str:
    """Decode a block and the rest of its last character, three more bytes at most."""
    for _ in range(4):
        try:
            return piece.decode("utf-8")
        except UnicodeDecodeError as error:
            more = file.read(1) if error.end == len(piece) else b""
            if not more:
                raise InvalidData(
                    f"not UTF-8: byte 0x{piece[error.start]:02x}",
                    file=place.file,
                    line=place.line + piece.count(b"\n", 0, error.start),
                    hint="save the file as UTF-8",
                ) from error
            piece += more
    raise AssertionError("a character has four bytes at most")
