"""What is logged to a run, as the lines of its spool."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeAlias

from raylora.tracking.run import RunStatus


@dataclass(frozen=True)
class Metrics:
    """Values of one step."""

    values: Mapping[str, float]
    step: int
    time_ms: int


@dataclass(frozen=True)
class Params:
    """Parameters, flat: dotted keys and short strings."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Tags:
    """Tags, over earlier ones of the same key."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Content:
    """A mapping that becomes an artifact."""

    content: Mapping[str, Any]
    file: str


@dataclass(frozen=True)
class Artifacts:
    """Files of a directory, which are read when they are sent."""

    directory: str
    """Relative to the run's folder where it lies in there."""
    path: str


@dataclass(frozen=True)
class DatasetUsed:
    """A data set that goes into the run."""

    name: str
    source: str
    digest: str
    rows: int
    context: str


@dataclass(frozen=True)
class Registration:
    """An adapter that is to become a version of a name."""

    name: str
    directory: str
    digest: str
    """Of its files, which may not change until it is registered."""
    tags: Mapping[str, str]
    alias: str | None
    """To be moved to the version."""
    champion: bool = True
    """Whether it becomes the champion of a name that has none."""
    parent_tag: str = ""
    """Tag of the run above, if any, that names the version."""


class Registered(NamedTuple):
    """What came of it."""

    adapter: str
    """The version, such as name@7."""
    aliases: tuple[str, ...]
    """That point at it."""
    notices: tuple[str, ...] = ()
    """Why an alias was not moved to it."""


@dataclass(frozen=True)
class Status:
    """How the run stands from now on."""

    status: RunStatus
    time_ms: int


@dataclass(frozen=True)
class Lost:
    """Points that could not be written down, as on a full disk."""

    points: int


Record: TypeAlias = (
    Metrics | Params | Tags | Content | Artifacts | DatasetUsed | Registration | Status | Lost
)

_KINDS: Mapping[str, type[Record]] = {
    "metrics": Metrics,
    "params": Params,
    "tags": Tags,
    "content": Content,
    "artifacts": Artifacts,
    "dataset": DatasetUsed,
    "register": Registration,
    "status": Status,
    "lost": Lost,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode(record: Record) -> bytes:
    """One line. NaN and infinity are written as Python's json reads them."""
    body = {"kind": _NAMES[type(record)], **asdict(record)}
    return json.dumps(body, separators=(",", ":"), default=str).encode() + b"\n"


def decode(line: bytes) -> Record | None:
    """The record of a line; None for a damaged one."""
    try:
        body = json.loads(line)
        kind = _KINDS[body.pop("kind")]
        if kind is Status:
            body["status"] = RunStatus(body["status"])
        return kind(**body)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
