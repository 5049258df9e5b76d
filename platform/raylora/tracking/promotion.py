"""Promotion: the one place that moves an alias."""

import getpass
import json
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from raylora.errors import InvalidConfig, Problem
from raylora.tracking.reference import parse, parse_alias
from raylora.tracking.registry import CHAMPION, Registry

PROMOTION_TAG = "raylora.promotion."
"""On a version, with the alias behind it: the decision as JSON."""


@dataclass(frozen=True)
class Decision:
    """What a promotion did and why."""

    name: str
    alias: str
    from_version: int | None
    """Where the alias pointed; None where it was not set."""
    to_version: int
    """Where it points now."""
    moved: bool
    reason: str
    who: str
    when: str


def promote(
    registry: Registry, ref: str, alias: str = CHAMPION, *, only_if_unset: bool = False
) -> Decision:
    """Point an alias at the version that ref means, and record the decision on that version.

    only_if_unset leaves an alias that points anywhere: the first version becomes champion so, and
    the second does not. Raises InvalidConfig for a bare name or a bad alias, NotFound.
    """
    parse_alias(alias)
    _says_which(ref)
    version = registry.resolve(ref)
    incumbent = registry.aliases(version.name).get(alias)
    moved = incumbent is None or (incumbent != version.version and not only_if_unset)
    if moved:
        reason = "the alias was not set" if incumbent is None else "asked for"
    else:
        reason = f"the alias points at {version.name}@{incumbent} already"
    decision = Decision(
        name=version.name,
        alias=alias,
        from_version=incumbent,
        to_version=version.version if moved or incumbent is None else incumbent,
        moved=moved,
        reason=reason,
        who=_who(),
        when=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    if moved:
        registry.set_alias(version, alias, {PROMOTION_TAG + alias: json.dumps(asdict(decision))})
    return decision


def _says_which(ref: str) -> None:
    """A bare name means its champion, and promoting that to champion would do nothing."""
    reference = parse(ref)
    if reference.version is None and reference.alias is None:
        raise InvalidConfig(
            [
                Problem(
                    key=ref,
                    message="a promotion names its version",
                    remedy=f"Write {ref}@NUMBER; `raylora adapters show {ref}` lists the versions",
                )
            ]
        )


def _who() -> str:
    """user@host; a container may run as a user without a name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
