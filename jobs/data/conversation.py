"""One line of a data file to the messages of a conversation, refusing whatever is off."""

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final, TypeAlias, cast

MAX_LINE_BYTES: Final = 1_000_000
"""About 250,000 tokens, more than any context length trained here. A line is held in memory as a
whole, so without a limit one line of a gigabyte would be too."""

COLUMN: Final = "messages"


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


Message: TypeAlias = dict[str, str]
"""One turn, in the shape chat templates take: role and content."""


class BadLine(Exception):
    """What is wrong with one line, and what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def parse_line(line: bytes) -> tuple[Message, ...]:
    """Messages of one row: at most a system message first, and an answer last."""
    record = _record(line)
    if COLUMN not in record:
        raise BadLine(
            f"no column {COLUMN!r}; the columns are: {_join(record) or 'none'}",
            f"rename the column that holds the conversation to {COLUMN!r}",
        )
    turns: object = record[COLUMN]
    if not isinstance(turns, list) or not turns:
        raise BadLine(
            f"column {COLUMN!r} is {_kind(turns)}",
            'write a list such as [{"role": "user", "content": "..."}, '
            '{"role": "assistant", "content": "..."}]',
        )
    messages = tuple(_message(turn, i) for i, turn in enumerate(cast(list[object], turns)))
    _check_order([message["role"] for message in messages])
    return messages


def _record(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(
            f"longer than {MAX_LINE_BYTES} bytes", "write one row a line; split or drop long rows"
        )
    try:
        record: object = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadLine(
            f"not UTF-8: byte 0x{line[error.start]:02x} at offset {error.start}",
            "save the file as UTF-8",
        ) from error
    except json.JSONDecodeError as error:
        raise BadLine(
            f"not JSON: {error.msg} at column {error.colno}",
            "write one complete JSON object a line",
        ) from error
    except (RecursionError, ValueError) as error:  # nesting; integers of thousands of digits
        raise BadLine(
            "JSON nested too deep, or with a number too long to read",
            f"write {COLUMN!r} as a flat list of messages",
        ) from error
    if not isinstance(record, dict):
        raise BadLine(
            f"{_kind(record)} where an object belongs", f'write {{"{COLUMN}": [...]}} on each line'
        )
    return cast(dict[str, Any], record)


def _message(turn: object, index: int) -> Message:
    where = f"{COLUMN}[{index}]"
    if not isinstance(turn, dict):
        raise BadLine(f"{where} is {_kind(turn)}", 'write {"role": "...", "content": "..."}')
    fields = cast(dict[str, object], turn)
    if set(fields) != {"role", "content"}:
        raise BadLine(
            f"{where} has the keys: {_join(fields) or 'none'}",
            "give each message role and content, and nothing else",
        )
    role, content = fields["role"], fields["content"]
    if role not in list(Role):
        raise BadLine(f"{where} has the unknown role {role!r:.60}", f"use one of: {_join(Role)}")
    if not isinstance(content, str):
        raise BadLine(f"{where} has {_kind(content)} as its content", "write text")
    if not content.strip():
        raise BadLine(f"{where} has no content", "write text, or drop the row")
    if not _is_encodable(content):
        raise BadLine(
            f"{where} holds half of a surrogate pair", r"write both halves, \ud83d\ude00"
        )
    return Message(role=str(role), content=content)


def _check_order(roles: Sequence[str]) -> None:
    if Role.ASSISTANT not in roles:
        raise BadLine("no assistant message, so nothing to learn", "add the assistant's answer")
    if roles[0] == Role.ASSISTANT:
        raise BadLine(
            "the conversation begins with the assistant", "begin with a system or user message"
        )
    if Role.SYSTEM in roles[1:]:
        raise BadLine("a system message comes late", "put it first, and only one")
    if roles[-1] != Role.ASSISTANT:
        raise BadLine(
            f"the conversation ends with the {roles[-1]}", "end it with the assistant's answer"
        )


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, list) and not value:
        return "an empty list"
    return _KINDS[type(cast(object, value))]


_KINDS: Final[dict[type, str]] = {
    str: "a string",
    list: "a list",
    dict: "an object",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)[:200]
