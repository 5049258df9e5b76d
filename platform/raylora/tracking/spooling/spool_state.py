"""How far a spool has been sent: one small file in its folder, replaced after each request."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from raylora.tracking.run import RunStatus

STATE = "state.json"


@dataclass(frozen=True)
class State:
    """How far a spool has been sent."""

    mlflow_run_id: str = ""
    status: RunStatus | None = None
    """The last of which the store was told, or that was passed over."""
    offsets: Mapping[str, int] = field(default_factory=dict[str, int])
    """By file: what was sent of it."""
    points: int = 0
    """Sent, those that the store had already among them."""
    thinned: int = 0
    lost: int = 0
    """Points that were refused, damaged, or never written down."""
    refusals: Sequence[str] = ()
    """Why, each reason once."""
    adapter: str = ""
    """The version that was registered, such as name@7."""
    aliases: Sequence[str] = ()
    """That pointed at it then."""
    notices: Sequence[str] = ()
    """Why an alias was not moved to it."""


def read_state(folder: Path) -> State:
    """How far the spool in a folder has been sent."""
    with suppress(FileNotFoundError, ValueError, TypeError):
        body = json.loads((folder / STATE).read_bytes())
        status = body.pop("status")
        return State(**body, status=RunStatus(status) if status else None)
    return State()


def write_state(folder: Path, state: State) -> None:
    """Replace it. A power failure may bring an older one back, and then more is sent again."""
    replace_file(folder / STATE, json.dumps(asdict(state)).encode())


def replace_file(path: Path, content: bytes) -> None:
    """Give a file other content: whoever reads it sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)
