"""The decisions about an alias: one chain, in which each begins where the one before it ended."""

import getpass
import json
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from raylora.tracking.adapters.gate import Check

MAX_REASON = 1000
"""Characters of a reason that are kept."""


class Kind(StrEnum):
    """What a decision was."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    DELETE = "delete"
    """The version that the alias pointed at was deleted, and the alias with it."""


@dataclass(frozen=True)
class Decision:
    """What was decided about an alias, by whom, and why."""

    name: str
    alias: str
    kind: Kind
    number: int
    """Place in the alias's chain, from 1; 0 where nothing was decided."""
    from_version: int | None
    """Where the alias pointed; None where it was not set."""
    to_version: int | None
    """Where it points now."""
    moved: bool
    forced: bool
    """Whether the gate would have held it back."""
    reason: str
    who: str
    when: str
    id: str
    """Of its own, so that no two decisions are equal."""
    checks: Sequence[Check] = field(default=())
    """Of the gate; kept in the artifact and the tag, not in the chain."""

    @property
    def key(self) -> str:
        """Of its entry in the ledger."""
        return f"{self.alias}/{self.number:06d}"

    def entry(self) -> str:
        """As the ledger keeps it: without the figures, which are in its artifact."""
        return json.dumps({key: value for key, value in asdict(self).items() if key != "checks"})


def chain_of(entries: Mapping[str, str], alias: str) -> list[Decision]:
    """The decisions about an alias in a ledger, the first one first."""
    keys = sorted(key for key in entries if re.fullmatch(rf"{re.escape(alias)}/\d+", key))
    return [_read(json.loads(entries[key])) for key in keys]


def earlier_versions(chain: Sequence[Decision]) -> list[int]:
    """Where a rollback may go, the nearest first.

    What was promoted lies on a stack; a rollback takes off the top, down to the version that it
    goes to, so that two of them go two steps back.
    """
    stack: list[int | None] = [chain[0].from_version] if chain else []
    for decision in chain:
        if decision.kind is not Kind.ROLLBACK:
            stack.append(decision.to_version)
            continue
        stack.pop()
        while stack[-1] != decision.to_version:
            stack.pop()
    return [version for version in reversed(stack[:-1]) if version is not None]


def decide(
    kind: Kind,
    name: str,
    alias: str,
    chain: Sequence[Decision],
    *,
    from_version: int | None,
    to_version: int | None,
    reason: str,
    moved: bool = True,
    forced: bool = False,
    checks: Sequence[Check] = (),
) -> Decision:
    """The decision that comes after a chain, by whoever runs this, now."""
    return Decision(
        name=name,
        alias=alias,
        kind=kind,
        number=len(chain) + 1 if moved else 0,
        from_version=from_version,
        to_version=to_version,
        moved=moved,
        forced=forced,
        reason=reason[:MAX_REASON],
        who=_who(),
        when=datetime.now(UTC).isoformat(timespec="milliseconds"),
        id=secrets.token_hex(8),
        checks=checks,
    )


def _read(stored: dict[str, Any]) -> Decision:
    fields: dict[str, Any] = stored | {"kind": Kind(stored["kind"])}
    return Decision(**fields)


def _who() -> str:
    """user@host; a container may run as a user without a name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
