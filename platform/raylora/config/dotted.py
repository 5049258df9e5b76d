"""Nested sections addressed by dotted keys, as in training.max_steps."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any


def walk(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with its value, a section before what it holds; lists are values."""
    for name, value in data.items():
        key = f"{prefix}{name}"
        yield key, value
        if isinstance(value, dict):
            yield from walk(value, f"{key}.")


def get(data: dict[str, Any], key: str) -> Any:
    """The value of a key, None where there is none; the empty key is the whole."""
    value: Any = data
    for name in key.split(".") if key else ():
        value = value.get(name) if isinstance(value, dict) else None
    return value


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a key, making its sections; what is no section is replaced by one."""
    *sections, name = key.split(".")
    for section in sections:
        below = data.get(section)
        if not isinstance(below, dict):
            below = data[section] = {}
        data = below
    data[name] = value


def without(data: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """A copy that lacks some keys."""
    data = copy.deepcopy(data)
    for key in keys:
        section, _, name = key.rpartition(".")
        parent = get(data, section)
        if isinstance(parent, dict):
            parent.pop(name, None)  # pyright: ignore[reportUnknownMemberType]
    return data
