"""What a row is once its shape is known: a conversation, checked turn by turn, or plain text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias, cast

from raylora.jobs.data.kinds import joined, kind
from raylora.jobs.data.records import BadLine
from raylora.jobs.data.tool_calls import calls


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


Message: TypeAlias = dict[str, Any]
"""One turn as chat templates take it: role, content, and with tools what belongs to them."""

MAX_WEIGHT: Final = 100.0


@dataclass(frozen=True)
class Conversation:
    """At most a system message first, and an answer last."""

    messages: tuple[Message, ...]
    weights: tuple[float, ...]
    """Of the loss, by message; 1 unless the row says otherwise."""
    tools: tuple[dict[str, Any], ...] = ()
    """JSON schemas of the functions that the assistant may call."""

    def prompted(self, system_prompt: str | None) -> "Conversation":
        """With the system prompt in front where there is none."""
        if system_prompt is None or self.messages[0]["role"] == Role.SYSTEM:
            return self
        first = Message(role=Role.SYSTEM.value, content=system_prompt)
        return Conversation((first, *self.messages), (1.0, *self.weights), self.tools)


@dataclass(frozen=True)
class PlainText:
    """Text without turns; all of it is learnt."""

    text: str


Content: TypeAlias = Conversation | PlainText


def conversation(turns: object, where: str, tools: Sequence[dict[str, Any]] = ()) -> Conversation:
    """Check turns in the shape of messages; `where` is their column. Raises BadLine."""
    if not isinstance(turns, list) or not turns:
        raise BadLine(
            f"column {where!r} is {kind(turns)}",
            'write a list such as [{"role": "user", "content": "..."}, '
            '{"role": "assistant", "content": "..."}]',
        )
    given = cast(list[Any], turns)
    if _are_plain(given):
        messages, weights = tuple(given), (1.0,) * len(given)
    else:
        checked = [_turn(turn, f"{where}[{i}]") for i, turn in enumerate(given)]
        messages, weights = zip(*checked, strict=True)
    _check_order(messages)
    return Conversation(messages, weights, tuple(tools))


def plain_text(value: object, where: str) -> PlainText:
    """Check a text. Raises BadLine."""
    return PlainText(text_in(value, where))


def text_in(value: object, where: str) -> str:
    """Text that is not blank. Raises BadLine."""
    text = _text(value, where)
    if not text.strip():
        raise BadLine(f"{where} has no content", "write text, or drop the row")
    return text


def canonical(content: Content) -> bytes:
    """The same for the same content, however a file spells it."""
    match content:
        case PlainText(text):
            said: object = {"text": text}
        case Conversation(messages, weights, tools):
            plain = not tools and set(weights) == {1.0}
            said = messages if plain else [messages, weights, tools]
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"


def _are_plain(turns: list[Any]) -> bool:
    """Whether `_turn` would take each as it is. Most rows are so, and to see it takes a tenth."""
    for turn in turns:
        if type(turn) is not dict or turn.keys() != _PLAIN_KEYS:
            return False
        role, content = turn["role"], turn["content"]
        if type(role) is not str or role not in _PLAIN_ROLES or type(content) is not str:
            return False
        if not content or content.isspace():
            return False
        if not content.isascii() and not _is_encodable(content):
            return False
    return True


_PLAIN_KEYS: Final = frozenset({"role", "content"})
_PLAIN_ROLES: Final = frozenset({"system", "user", "assistant"})


def _is_encodable(text: str) -> bool:
    """Whether there is no half of a surrogate pair in it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _turn(turn: object, where: str) -> tuple[Message, float]:
    if not isinstance(turn, dict):
        raise BadLine(f"{where} is {kind(turn)}", 'write {"role": "...", "content": "..."}')
    fields = cast(dict[str, object], turn)
    # Formats with columns give each turn all keys that any turn has.
    given = {key: value for key, value in fields.items() if value is not None}
    if given.get("tool_calls") == []:
        del given["tool_calls"]
    role = given.get("role")
    if role not in list(Role):
        if "role" in given:
            raise BadLine(
                f"{where} has the unknown role {role!r:.60}", f"use one of: {joined(Role)}"
            )
        raise _wrong_keys(where, fields)
    has_calls = "tool_calls" in given
    allowed, needed = _KEYS[Role(str(role))], {"role"} if has_calls else {"role", "content"}
    if not set(given) <= allowed or not needed <= set(fields):
        raise _wrong_keys(where, fields)
    message = Message(role=str(role), content=_content(given, role, where, fields, has_calls))
    if has_calls:
        message["tool_calls"] = calls(given["tool_calls"], f"{where}.tool_calls")
    for key in _TEXT_KEYS & set(given):
        message[key] = _text(given[key], f"{where}.{key}")
    return message, _weight(given.get("weight", 1.0), where)


_TEXT_KEYS: Final = frozenset({"reasoning_content", "name", "tool_call_id"})

_KEYS: Final[Mapping[Role, frozenset[str]]] = {
    Role.SYSTEM: frozenset({"role", "content"}),
    Role.USER: frozenset({"role", "content"}),
    Role.ASSISTANT: frozenset({"role", "content", "tool_calls", "reasoning_content", "weight"}),
    Role.TOOL: frozenset({"role", "content", "name", "tool_call_id"}),
}


def _wrong_keys(where: str, fields: Mapping[str, object]) -> BadLine:
    return BadLine(
        f"{where} has the keys: {joined(fields)}",
        "give each message role and content; an assistant's may have tool_calls, "
        "reasoning_content and weight, a tool's name and tool_call_id",
    )


def _content(
    given: Mapping[str, object], role: object, where: str, fields: object, has_calls: bool
) -> str:
    value = given.get("content", "" if has_calls else None)
    if isinstance(value, list):
        value = "".join(_part(part, where) for part in cast(list[object], value))
    if not isinstance(value, str):
        raise BadLine(f"{where} has {kind(value)} as its content", "write text")
    if not value.strip() and not has_calls and role != Role.TOOL:
        raise BadLine(f"{where} has no content", "write text, or drop the row")
    return _text(value, where)


def _part(part: object, where: str) -> str:
    """One part of a content in parts, such as {"type": "text", "text": "..."}."""
    fields = cast(dict[str, object], part) if isinstance(part, dict) else {}
    text = fields.get("text")
    if fields.get("type") != "text" or not isinstance(text, str):
        raise BadLine(
            f"{where} has a part that is no text: {fields.get('type', kind(part))!s:.60}",
            "this trains on text; drop images, audio and files",
        )
    return text


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise BadLine(f"{where} is {kind(value)}", "write text")
    if not _is_encodable(value):
        raise BadLine(
            f"{where} holds half of a surrogate pair", r"write both halves, \ud83d\ude00"
        )
    return value


def _weight(value: object, where: str) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= MAX_WEIGHT:
        raise BadLine(
            f"{where} has the weight {value!r:.60}",
            f"write a number from 0 (not learnt) to {MAX_WEIGHT:.0f}; 1 is usual",
        )
    return float(value)


# Looked up for every row: a member of an enum costs as much as the comparison.
_SYSTEM, _ASSISTANT, _TOOL = Role.SYSTEM.value, Role.ASSISTANT.value, Role.TOOL.value


def _check_order(messages: Sequence[Message]) -> None:
    roles = [message["role"] for message in messages]
    if _ASSISTANT not in roles:
        raise BadLine("no assistant message, so nothing to learn", "add the assistant's answer")
    if roles[0] == _ASSISTANT:
        raise BadLine(
            "the conversation begins with the assistant", "begin with a system or user message"
        )
    if _SYSTEM in roles[1:]:
        raise BadLine("a system message comes late", "put it first, and only one")
    if roles[-1] != _ASSISTANT:
        raise BadLine(
            f"the conversation ends with the {roles[-1]}", "end it with the assistant's answer"
        )
    if _TOOL in roles:
        _check_tools(messages)


def _check_tools(messages: Sequence[Message]) -> None:
    for before, message in zip(messages, messages[1:], strict=False):
        answers_call = before["role"] == Role.TOOL or "tool_calls" in before
        if message["role"] == Role.TOOL and not answers_call:
            raise BadLine(
                f"a tool answers the {before['role']}, who called none",
                "put the assistant's tool_calls before it",
            )
