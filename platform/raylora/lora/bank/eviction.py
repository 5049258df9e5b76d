"""What leaves a memory tier to make room: used longest ago first, pinned and in use never.

Policy only, in bytes; it knows nothing of tensors or files.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from raylora.errors import RayloraError


class Tier(StrEnum):
    """The fastest place that holds an adapter."""

    DEVICE = "device"
    """A slot beside those of the running batch."""
    HOST = "host"
    """Memory, converted and checked."""
    DISK = "disk"
    """Its directory; it is loaded again before it is used."""


class NoRoom(RayloraError):
    """What would have to leave is in use."""


@dataclass(frozen=True)
class Held:
    """One adapter in a tier."""

    key: str
    bytes: int
    in_use: bool = False
    """Answering a request, or pinned."""


def victims(held: Iterable[Held], wanted: int, budget: int | None) -> list[str]:
    """Keys that must leave so that `wanted` bytes fit into `budget`; None has no end.

    held: from the one used longest ago on. Raises NoRoom with the numbers where it cannot be done,
    so that nothing leaves in vain.
    """
    if budget is None:
        return []
    everything = list(held)
    excess = sum(one.bytes for one in everything) + wanted - budget
    chosen: list[str] = []
    for one in everything:
        if excess <= 0:
            break
        if not one.in_use:
            chosen.append(one.key)
            excess -= one.bytes
    if excess > 0:
        busy = sum(one.bytes for one in everything if one.in_use)
        raise NoRoom(
            f"an adapter of {wanted} bytes does not fit into {budget} bytes of memory, "
            f"of which {busy} are in use",
            hint="try again when requests have ended, or raise the budget",
        )
    return chosen
