"""The `defaults:` list of a configuration: which shipped groups and presets it starts from."""

from difflib import get_close_matches
from typing import Any

from raylora.config.document import Document
from raylora.config.presets import GROUPS, Kind, options
from raylora.errors import Problem

_FORM = "Write entries such as /model: smollm2, /train/quickstart or _self_."


def check_defaults(document: Document) -> tuple[list[Any], list[Problem]]:
    """The entries that Hydra can follow, and a problem for each of the others.

    Without _self_ the file's own values come last, so that they win over the groups.
    """
    listed = document.data.get("defaults", [])
    source = document.source("defaults")
    if not isinstance(listed, list):
        return ["_self_"], [Problem("defaults", "is not a list", _FORM, source)]
    good: list[Any] = []
    problems: list[Problem] = []
    for index, entry in enumerate(listed):
        key = f"defaults.{index}"
        wrong = _wrong_with(entry)
        if wrong:
            problems.append(Problem(key, *wrong, document.source(key)))
        else:
            good.append(entry)
    return (good if "_self_" in good else [*good, "_self_"]), problems


def _wrong_with(entry: Any) -> tuple[str, str] | None:
    """Message and remedy, or None."""
    match entry:
        case "_self_":
            return None
        case str():
            group, _, option = entry.lstrip("/").rpartition("/")
            return _wrong_choice(group, option)
        case dict() if len(entry) == 1:
            written, chosen = next(iter(entry.items()))
            words = written.split()
            group = words[-1].lstrip("/") if words else ""
            if words[:-1] not in ([], ["override"], ["optional"]):
                return f"found {written!r}", _FORM
            if words[:-1] == ["optional"]:
                return "a group is chosen or left out", f"Write /{group}: OPTION."
            if chosen is None:
                return None if group in GROUPS else _wrong_choice(group, "")
            names = chosen if isinstance(chosen, list) else [chosen]
            wrong = (_wrong_choice(group, name) for name in names)
            return next(filter(None, wrong), None)
        case _:
            return f"found {entry!r:.60}", _FORM


def _wrong_choice(group: str, option: Any) -> tuple[str, str] | None:
    groups = (*GROUPS, *Kind)
    if group not in groups:
        return f"there is no group {group!r}", f"Groups: {', '.join(groups)}."
    available = options(group)
    if option in available:
        return None
    near = get_close_matches(str(option), available, n=1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return f"{group} has no option {option!r}", f"{meant}Options: {', '.join(available)}."
