"""Let the schema judge composed data: a spec, or every problem at once."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from raylora.config.dotted import get, walk, without
from raylora.config.schema import Keys, keys_of
from raylora.config.spec import Spec
from raylora.errors import InvalidConfig, Problem

SpecT = TypeVar("SpecT", bound=Spec)

Source = Callable[[str], str]
"""Says where a dotted key of the data was written; empty for a default."""


def judge(
    spec_type: type[SpecT], data: dict[str, Any], source: Source, found: Iterable[Problem] = ()
) -> SpecT:
    """Validate strictly; raise InvalidConfig with the problems found before and all new ones.

    A rule between keys is checked only where the keys it names are right, so after each
    round the bad keys are set aside and the rest is judged again until nothing new is said.
    """
    problems = list(found)
    keys = keys_of(spec_type)
    data, missing = _set_missing_aside(data, source)
    problems += missing
    blamed = {problem.key for problem in problems}
    suspects: set[str] = set()
    while True:
        try:
            # JSON mode: enums and tuples come from text and lists, yet 2.5 is no integer.
            spec = spec_type.model_validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            bad = _bad_keys(error, keys)
            named = set(bad).union(*(entry.names for entry in bad.values()))
            problems += _problems(bad, keys, data, source, suspects | blamed)
            if named <= suspects:
                raise InvalidConfig(list(dict.fromkeys(problems))) from error
            suspects |= named
            data = without(data, (_removable(key, keys) for key in suspects))
            continue
        if problems:
            raise InvalidConfig(list(dict.fromkeys(problems)))
        return spec


def unknown_key(key: str, keys: Keys, source: str) -> Problem:
    """The problem of a key that the spec does not have."""
    section = keys.known_part(key)
    near = keys.nearest(key)
    names = ", ".join(keys.section(section))
    if section and not names:
        field = keys.at(section)
        remedy = f"{section} takes {field.allowed if field else 'no keys'}."
    else:
        meant = f"Did you mean {' or '.join(near)}? " if near else ""
        remedy = f"{meant}Keys {'of ' + section if section else 'at the top'}: {names}."
    return Problem(key, "there is no such key", remedy, source)


class _Bad:
    """What pydantic said about one key, and which keys that sentence names."""

    def __init__(self, error: ErrorDetails, names: list[str]) -> None:
        self.error = error
        self.names = names


def _bad_keys(error: ValidationError, keys: Keys) -> dict[str, _Bad]:
    """One entry a key: of a union's errors the first, since the remedy names all it allows."""
    bad: dict[str, _Bad] = {}
    for details in error.errors(include_url=False):
        unknown = details["type"] == "extra_forbidden"
        key = _dotted(details["loc"]) if unknown else keys.known_part(_dotted(details["loc"]))
        names: list[str] = []
        if details["type"] == "value_error":
            names = _names_in(details["msg"], key, keys)
            key = names[0] if names else key
        bad.setdefault(key, _Bad(details, names))
    return bad


def _problems(
    bad: dict[str, _Bad], keys: Keys, data: dict[str, Any], source: Source, suspects: set[str]
) -> list[Problem]:
    problems: list[Problem] = []
    for key, entry in bad.items():
        error = entry.error
        if error["type"] == "extra_forbidden":
            problems.append(unknown_key(key, keys, source(key)))
        elif error["type"] == "value_error":
            if not any(_suspect(name, suspects) for name in entry.names or [key]):
                sources = dict.fromkeys(filter(None, map(source, entry.names or [key])))
                message, remedy = _sentence(error["msg"])
                problems.append(Problem(key, message, remedy, ", ".join(sources)))
        elif error["type"] == "missing":
            problems.append(Problem(key, "a value is required", f"Write {key}.", source(key)))
        else:
            message = f"found {_shown(data, key)}"
            field = keys.at(key)
            assert field is not None, key
            remedy = f"Write {field.allowed}."
            if field.takes_text and not isinstance(get(data, key), str):
                remedy = remedy.removesuffix(".") + ", in quotes."
            problems.append(Problem(key, message, remedy, source(key)))
    return problems


def _removable(key: str, keys: Keys) -> str:
    """The key, or the whole list or mapping that it is a part of."""
    known = keys.field_of(key)
    return known if known and not keys.fields[known].is_section else key


def _suspect(key: str, suspects: set[str]) -> bool:
    return any(key == bad or key.startswith(f"{bad}.") for bad in suspects)


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _names_in(message: str, section: str, keys: Keys) -> list[str]:
    """Dotted keys that a validator finds wrong, in its order; bare names mean the section.

    Between sections keys are named in full: `name` is but a word there.
    """
    words = re.findall(r"[A-Za-z_][\w.]*\w", message.partition("; ")[0])
    names = [word if "." in word else f"{section}.{word}" for word in words]
    known = [name for name in names if name in keys.fields and not keys.fields[name].is_section]
    return list(dict.fromkeys(known))


def _sentence(message: str) -> tuple[str, str]:
    """Validators write "what is wrong; what to do instead"."""
    wrong, _, remedy = message.removeprefix("Value error, ").partition("; ")
    remedy = remedy or "change one of the two"
    return wrong, remedy[0].upper() + remedy[1:] + "."


def _set_missing_aside(
    data: dict[str, Any], source: Source
) -> tuple[dict[str, Any], list[Problem]]:
    """Hydra's ??? marks a value that the user has to give."""
    missing = [key for key, value in walk(data) if value == "???"]
    problems = [
        Problem(key, "a value is required", f"Write {key}=VALUE or set it in a file.", source(key))
        for key in missing
    ]
    return without(data, missing), problems


def _shown(data: dict[str, Any], key: str) -> str:
    value = get(data, key)
    if isinstance(value, dict):
        return "a section of keys"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
