"""What a value of a row is called in messages to the user."""

from collections.abc import Iterable
from typing import Final, cast


def kind(value: object) -> str:
    """Such as "a string" or "an empty list"."""
    if isinstance(value, list) and not value:
        return "an empty list"
    return _KINDS.get(type(cast(object, value)), f"a {type(value).__name__}")


def joined(names: Iterable[object]) -> str:
    """Names as one short line; "none" where there are none."""
    return ", ".join(map(str, names))[:200] or "none"


_KINDS: Final[dict[type, str]] = {
    type(None): "null",
    str: "a string",
    list: "a list",
    dict: "an object",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}
