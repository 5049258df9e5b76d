"""KEY=VALUE from the command line, in Hydra's grammar, bounded by the schema."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString
from hydra.errors import HydraException

from raylora.config.judge import unknown_key
from raylora.config.presets import GROUPS, options
from raylora.config.schema import Keys
from raylora.errors import InvalidConfig, Problem

MAX_LENGTH = 4_000
"""Characters of one override; Hydra's parser needs about a second for this much."""


@dataclass(frozen=True)
class Choice:
    """model=smollm2, +experiment=quick_test or ~profile (no options)."""

    text: str
    group: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Assignment:
    """lora.r=32, or ~training.max_steps, which goes back to the default."""

    text: str
    names: tuple[str, ...]
    """Of the sections and of the key; the last may have dots, as in lora.rank_pattern."""
    value: Any
    delete: bool = False


def parse_override(text: str, keys: Keys) -> Choice | Assignment:
    """One override; InvalidConfig says what is wrong with it."""
    source = f"override {text if len(text) <= 80 else text[:77] + '...'}"
    try:
        return _parse(text, keys, source)
    except _Wrong as wrong:
        raise InvalidConfig([Problem(wrong.key, wrong.message, wrong.remedy, source)]) from wrong


class _Wrong(Exception):
    def __init__(self, key: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.key, self.message, self.remedy = key, message, remedy


def _parse(text: str, keys: Keys, source: str) -> Choice | Assignment:
    written, equals, raw = text.partition("=")
    key = written.strip().lstrip("+~")
    if len(text) > MAX_LENGTH:
        raise _Wrong(key[:80], f"is longer than {MAX_LENGTH} characters", "Write it in a file.")
    if written.startswith("-"):
        raise _Wrong("", "an override has no dashes", f"Write {text.lstrip('-')}.")
    if not key or not (equals or written.startswith("~")):
        raise _Wrong(key, "is not KEY=VALUE", f"Write {key or 'lora.r'}=VALUE.")
    if written.startswith("~") and equals:
        raise _Wrong(key, "a key is removed without a value", f"Write ~{key}.")
    if key in GROUPS and not raw.lstrip().startswith("{"):
        return Choice(text, key, _chosen(text, key))
    names = keys.names_of(key)
    field = keys.at(key)
    if field is None or not names:
        raise InvalidConfig([unknown_key(key, keys, source)])
    if not equals:
        return Assignment(text, names, None, delete=True)
    if field.takes_text:
        return Assignment(text, names, _text_value(raw, nullable=field.nullable))
    return Assignment(text, names, _value(key, raw, field.allowed))


def _chosen(text: str, group: str) -> tuple[str, ...]:
    available = options(group)
    names = f"Options of {group}: {', '.join(available)}."
    try:
        override = _hydra_parse(text)
    except HydraException as error:
        raise _Wrong(group, "is not GROUP=OPTION", names) from error
    if override.type is OverrideType.DEL:
        return ()
    value = None if override.is_sweep_override() else override.value()
    chosen = value if isinstance(value, list) else [value]
    for name in chosen:
        if name not in available:
            near = get_close_matches(str(name), available, n=1)
            meant = f"Did you mean {near[0]}? " if near else ""
            shown = text.partition("=")[2][:60]
            raise _Wrong(group, f"there is no option {shown!r}", meant + names)
    return tuple(str(name) for name in chosen)


def _text_value(raw: str, *, nullable: bool) -> str | None:
    """Text is taken as it stands (==, a commit of digits); quotes and null mean what YAML says."""
    if nullable and raw == "null":
        return None
    if raw[:1] in ("'", '"'):
        try:
            element = _hydra_parse(f"x={raw}")._value  # pyright: ignore[reportPrivateUsage]
        except HydraException:
            return raw
        return element.text if isinstance(element, QuotedString) else raw
    return raw


def _value(key: str, raw: str, allowed: str) -> Any:
    try:
        override = _hydra_parse(f"x={raw}")
        if not override.is_sweep_override():
            return override.value()
    except HydraException as error:
        remedy = f"Write {allowed}; quote text with other signs: {key}='\"...\"'."
        raise _Wrong(key, f"cannot read the value {raw[:60]!r}", remedy) from error
    raise _Wrong(
        key, "several values where one is wanted", f"Write {key}=[{raw[:60]}] for a list."
    )


def _hydra_parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits and brackets nested in the hundreds.
        raise HydraException(str(error)) from error
