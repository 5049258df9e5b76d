"""Tools that a row offers and calls of them, in the one form that chat templates take."""

import json
from collections.abc import Mapping
from typing import Any, cast

from raylora.jobs.data.kinds import kind
from raylora.jobs.data.records import BadLine


def calls(value: object, where: str) -> list[dict[str, Any]]:
    """Calls with their arguments as an object, also where they are written as a string.

    Taken are {"function": {"name", "arguments"}}, with or without id and type, and
    {"name", "arguments"}. Raises BadLine.
    """
    if not isinstance(value, list):
        raise BadLine(f"{where} is {kind(value)}", f"write a list of calls such as {_CALL}")
    return [_call(item, f"{where}[{i}]") for i, item in enumerate(cast(list[object], value))]


def tools(value: object) -> tuple[dict[str, Any], ...]:
    """Function schemas out of the column tools: a list, or the same as a string of JSON."""
    if value is None or value == "" or value == []:
        return ()
    found = parsed(value, "column 'tools'")
    if not isinstance(found, list):
        raise BadLine(f"column 'tools' is {kind(found)}", f"write a list of schemas like {_TOOL}")
    return tuple(_tool(item, f"tools[{i}]") for i, item in enumerate(cast(list[object], found)))


def parsed(value: object, where: str) -> object:
    """The value, or what it says where it is a string of JSON. Raises BadLine."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"{where}: a string that is not JSON", "write an object or list") from error


_CALL = '{"type": "function", "function": {"name": "...", "arguments": {...}}}'
_TOOL = '{"type": "function", "function": {"name": "...", "parameters": {...}}}'


def _call(item: object, where: str) -> dict[str, Any]:
    function = _function(item)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise BadLine(f"{where} names no function", f"write {_CALL}")
    arguments = parsed(function.get("arguments", {}), f"{where}: arguments")
    if not isinstance(arguments, dict):
        raise BadLine(f"{where} has {kind(arguments)} as its arguments", "write an object")
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    given = cast(dict[str, object], item)
    if given.get("id") is not None:
        call["id"] = str(given["id"])
    return cast(dict[str, Any], _encodable(call, where))


def _tool(item: object, where: str) -> dict[str, Any]:
    function = _function(item)
    if not isinstance(function.get("name"), str):
        raise BadLine(f"{where} names no function", f"write {_TOOL}")
    return cast(dict[str, Any], _encodable({"type": "function", "function": function}, where))


def _function(item: object) -> Mapping[str, object]:
    """What is in "function", or the item itself where it is written flat."""
    if not isinstance(item, dict):
        return {}
    fields = cast(dict[str, object], item)
    inner = fields.get("function", fields)
    return cast(dict[str, object], inner) if isinstance(inner, dict) else {}


def _encodable(value: object, where: str) -> object:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError, TypeError) as error:
        raise BadLine(
            f"{where} cannot be written as JSON text: {error}", "write plain JSON values"
        ) from error
    return value
