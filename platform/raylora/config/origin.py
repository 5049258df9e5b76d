"""Where a value of a spec came from."""

from dataclasses import dataclass
from enum import StrEnum


class OriginKind(StrEnum):
    """In rising order of precedence."""

    DEFAULT = "default"
    FILE = "file"
    OVERRIDE = "override"


@dataclass(frozen=True)
class Origin:
    """The schema's default, a line of a file, or an override as it was typed."""

    kind: OriginKind = OriginKind.DEFAULT
    text: str = ""
    """Path of the file, or the override."""
    line: int | None = None

    def __str__(self) -> str:
        match self.kind:
            case OriginKind.DEFAULT:
                return "default"
            case OriginKind.FILE:
                return self.text if self.line is None else f"{self.text}:{self.line}"
            case OriginKind.OVERRIDE:
                return f"override {self.text}"
