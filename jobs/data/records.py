"""One row as its file has it, with its place; or what is wrong with it, and what to write."""

from dataclasses import dataclass
from typing import Any, TypeAlias


class BadLine(Exception):
    """What is wrong with one row, and what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[type["BadLine"], tuple[str, str]]:
        """Keep the hint when it crosses a process."""
        return (BadLine, (str(self), self.hint))


@dataclass(frozen=True)
class Place:
    """Where a row comes from."""

    file: str
    line: int
    """1-based: the line, or in formats without lines the row."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Record:
    """One row."""

    place: Place
    fields: dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """A row that cannot be used."""

    place: Place
    problem: BadLine


Found: TypeAlias = Record | Fault
