"""How many threads a slot computes with: its own, and its share of what others do not need."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where the only worker of a slot computes, on a CPU."""

    node: str
    threads: int
    """Its own."""


def threads_of(slot: str, places: Mapping[str, Place], trials: Mapping[str, int]) -> int:
    """Of a slot that has trials; those without any lend theirs to the others of their node.

    places, trials: of all slots that are open, how many trials each has now.
    """
    own = places[slot]
    here = [name for name, place in places.items() if place.node == own.node]
    spare = sum(places[name].threads for name in here if not trials[name])
    return own.threads + spare // sum(trials[name] > 0 for name in here)
