"""Rows of chat messages from a JSONL file, read strictly and in bounded memory.

One JSON object a line: {"messages": [{"role": ..., "content": ...}, ...]}. Other columns are
ignored, and so are blank lines; anything else that is off is an error with its line.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO, Final

from raylora.errors import InvalidData
from raylora.jobs.data.conversation import MAX_LINE_BYTES, BadLine, Message, Role, parse_line

MAX_PROBLEMS: Final = 20
"""Bad lines reported at once; reading stops there."""

BUNDLED: Final = "bundled:"


@dataclass(frozen=True)
class Row:
    """One conversation; it ends with the assistant's answer."""

    messages: tuple[Message, ...]
    line: int
    """1-based."""

    def conversation(self, system_prompt: str | None) -> list[Message]:
        """Messages, with the system prompt in front where the row has none of its own."""
        if system_prompt is None or self.messages[0]["role"] == Role.SYSTEM:
            return list(self.messages)
        return [Message(role=Role.SYSTEM.value, content=system_prompt), *self.messages]


@dataclass(frozen=True)
class Rows:
    """The rows of one source, in file order."""

    source: str
    """As the spec names it."""
    file: str
    items: tuple[Row, ...]
    digest: str
    """sha256 of the messages: the same for the same rows, however the file spells its JSON."""

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.items)


def read_rows(source: str, base_dir: Path) -> Rows:
    """Read a path, relative to base_dir, or bundled:NAME/SPLIT.

    Raises InvalidData that lists up to MAX_PROBLEMS bad lines, or names the file as a whole.
    """
    path = _locate(source, base_dir)
    rows: list[Row] = []
    problems: list[tuple[int, BadLine]] = []
    digest = hashlib.sha256()
    for number, line in _lines(path):
        try:
            row = Row(parse_line(line), number)
        except BadLine as problem:
            problems.append((number, problem))
            if len(problems) == MAX_PROBLEMS:
                break
        else:
            rows.append(row)
            digest.update(_canonical(row))
    if problems:
        raise _report(problems, str(path))
    if not rows:
        raise InvalidData(
            "no rows", file=str(path), hint='write one {"messages": [...]} object a line'
        )
    return Rows(source, str(path), tuple(rows), digest.hexdigest())


def _locate(source: str, base_dir: Path) -> Path:
    if not source.startswith(BUNDLED):
        return base_dir / source
    folder = Path(str(files("raylora.jobs.data"))) / "bundled"
    known = {_bundled_name(path): path for path in sorted(folder.glob("*.jsonl"))}
    name = source.removeprefix(BUNDLED)
    if name not in known:
        raise InvalidData(
            "no such data set ships with raylora",
            file=source,
            hint="write one of: " + ", ".join(BUNDLED + name for name in known),
        )
    return known[name]


def _bundled_name(path: Path) -> str:
    """home_requests_train.jsonl is home_requests/train."""
    return "/".join(path.stem.rsplit("_", 1))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield lines that are not blank with their numbers, each cut just past MAX_LINE_BYTES."""
    number = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    _skip_rest(file, line)
                if not line.isspace():
                    yield number, line
    except OSError as error:
        raise InvalidData(
            f"cannot be read: {error.strerror}",
            file=str(path),
            hint="give a JSONL file, or a data set that ships with raylora such as "
            "bundled:home_requests/train",
        ) from error


def _skip_rest(file: BinaryIO, piece: bytes) -> None:
    while piece and not piece.endswith(b"\n"):
        piece = file.readline(MAX_LINE_BYTES)


def _report(problems: Sequence[tuple[int, BadLine]], file: str) -> InvalidData:
    (line, first), *others = problems
    message = str(first)
    for number, problem in others:
        message += f"\n{file}:{number}: {problem}. {problem.hint}"
    if len(problems) == MAX_PROBLEMS:
        message += f"\nstopped reading after {MAX_PROBLEMS} bad lines"
    return InvalidData(message, file=file, line=line, hint=first.hint)


def _canonical(row: Row) -> bytes:
    text = json.dumps(row.messages, sort_keys=True, separators=(",", ":"))
    return text.encode("ascii") + b"\n"
