"""How an adapter is named: name, name@7 or name@alias; one that is not registered run:ID."""

import re
from dataclasses import dataclass

from raylora.config.spec import ADAPTER_NAME
from raylora.errors import InvalidConfig, Problem

NAME = re.compile(ADAPTER_NAME)
VERSION = re.compile(r"[1-9][0-9]*")
LOOKS_LIKE_VERSION = re.compile(r"[vV]?[0-9]+")
RUN = "run:"
ALLOWED = "Use letters, digits, - and _, at most 64, starting with a letter or digit"
RESERVED = "latest"
"""MLflow keeps this alias for itself."""


@dataclass(frozen=True)
class Reference:
    """A parsed name; version and alias are never both set."""

    name: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        selector = self.alias if self.version is None else str(self.version)
        return self.name if selector is None else f"{self.name}@{selector}"


def parse(text: str) -> Reference:
    """Read a reference. Raises InvalidConfig with what to write instead."""
    name, at, selector = text.partition("@")
    parse_name(name, text)
    if not at:
        return Reference(name)
    if VERSION.fullmatch(selector):
        return Reference(name, version=int(selector))
    return Reference(name, alias=parse_alias(selector, text))


def is_run(text: str) -> bool:
    """Whether the adapter of a run is meant, run:ID. Raises InvalidConfig for what is no id."""
    if not text.startswith(RUN):
        return False
    if not NAME.fullmatch(text.removeprefix(RUN)):
        raise _invalid(text, f"{text.removeprefix(RUN)!r} is no id of a run", ALLOWED)
    return True


def parse_name(name: str, text: str | None = None) -> str:
    """The name itself, if an adapter can have it; text is the reference it stands in."""
    if not NAME.fullmatch(name):
        raise _invalid(name if text is None else text, f"{name!r} is no adapter name", ALLOWED)
    return name


def parse_alias(alias: str, text: str | None = None) -> str:
    """The alias itself, if it can be one: never all digits, v and digits, or `latest`."""
    shown = text if text is not None else alias
    if LOOKS_LIKE_VERSION.fullmatch(alias):
        number = alias.lstrip("vV").lstrip("0")
        remedy = f"Write the version as @{number}" if number else "Versions start at 1"
        raise _invalid(shown, f"{alias!r} can be neither a version nor an alias", remedy)
    if alias.lower() == RESERVED:
        raise _invalid(
            shown,
            f"the alias {alias!r} is MLflow's own",
            "Name a version or an alias you promoted",
        )
    if not NAME.fullmatch(alias):
        raise _invalid(shown, f"{alias!r} is no alias", ALLOWED)
    return alias


def _invalid(text: str, message: str, remedy: str) -> InvalidConfig:
    return InvalidConfig([Problem(key=text, message=message, remedy=remedy)])
