"""Nested sections addressed by dotted keys, as in training.max_steps or data.mixture.0.weight."""

import copy
from collections.abc import Iterable, Iterator, Sequence
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
    if not key:
        return data
    section, name = _find(data, key)
    return section.get(name)


def put(data: dict[str, Any], names: Sequence[str], value: Any) -> None:
    """Set the value at nested names, making their sections; what is no section becomes one."""
    *sections, name = names
    for section in sections:
        below = data.get(section)
        if not isinstance(below, dict):
            below = data[section] = {}
        data = below
    data[name] = value


def replace(data: dict[str, Any], key: str, value: Any) -> None:
    """Give a key that is there another value."""
    section, name = _find(data, key)
    section[name] = value


def without(data: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """A copy that lacks some keys."""
    data = copy.deepcopy(data)
    for key in keys:
        section, name = _find(data, key)
        section.pop(name, None)
    return data


def _find(data: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The section that holds a key, and its name there, which may have dots; else an empty one."""
    section: Any = data
    while True:
        if isinstance(section, list):
            section = dict(zip(map(str, range(len(section))), section, strict=True))
        if not isinstance(section, dict):
            return {}, key
        if key in section or "." not in key:
            return section, key
        name, _, key = key.partition(".")
        section = section.get(name)
