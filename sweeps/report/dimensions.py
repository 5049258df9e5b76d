"""What a sweep searched, as axes: keys that move together are one axis."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Settings = Mapping[str, Mapping[str, Any]]
"""By trial: its values by key."""


@dataclass(frozen=True)
class Dimension:
    """One axis of a search."""

    keys: tuple[str, ...]
    """The first names the axis; the others follow it."""
    values: Mapping[str, Any]
    """Of the first key, by trial; None where a trial does not have the key."""

    @property
    def label(self) -> str:
        """lora.r, lora.lora_alpha."""
        return ", ".join(self.keys)

    @cached_property
    def numeric(self) -> bool:
        """Whether the values have a size, and not only an order of appearance."""
        return all(_is_number(value) for value in self.values.values())

    @cached_property
    def levels(self) -> list[Any]:
        """The distinct values: numbers by size, others as they first appear."""
        distinct = list({_text(value): value for value in self.values.values()}.values())
        return sorted(distinct) if self.numeric else distinct

    @cached_property
    def places(self) -> dict[str, int]:
        """By trial: where in `levels` its value is."""
        at = {_text(level): place for place, level in enumerate(self.levels)}
        return {trial: at[_text(value)] for trial, value in self.values.items()}


def dimensions(settings: Settings) -> list[Dimension]:
    """The axes along which the trials differ, in the order of their keys."""
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    grouped: dict[tuple[int, ...], list[str]] = {}
    for key in keys:
        column = [_text(values.get(key)) for values in settings.values()]
        if len(set(column)) > 1:
            # Two keys that tell the same trials apart get the same numbers.
            grouped.setdefault(tuple(column.index(text) for text in column), []).append(key)
    return [
        Dimension(
            tuple(group), {trial: values.get(group[0]) for trial, values in settings.items()}
        )
        for group in grouped.values()
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    """8 and 8.0 are one value; a list is no key of a dictionary."""
    if _is_number(value) and value == int(value):
        value = int(value)
    return json.dumps(value, sort_keys=True)
