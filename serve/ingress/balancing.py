"""Which replica answers: one that holds the adapter, unless it has far more to do than others."""

import hashlib
from collections.abc import Iterable, Set
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A replica as the ingress knows it."""

    id: str
    open: int
    """Requests that it was given and that have not ended."""
    limit: int
    """Requests that it takes: its batch and its queue."""
    batch: int
    """Requests that it works on at once."""
    names: Set[str]
    """Models that it answers without a load."""
    failed: bool = False
    """Its engine can answer nothing any more."""
    draining: bool = False

    @property
    def takes_more(self) -> bool:
        """Whether it may be given another request."""
        return not (self.failed or self.draining) and self.open < self.limit


def choose(candidates: Iterable[Candidate], model: str) -> Candidate | None:
    """The replica for a request; None where none takes more.

    A holder is preferred until it has a whole batch more to do than the least busy replica: then
    another load of the adapter costs less than the wait. Among equals the choice depends on the
    model alone (rendezvous hashing), so that each adapter settles on few replicas.
    """
    able = [candidate for candidate in candidates if candidate.takes_more]
    if not able:
        return None
    least = min(candidate.open for candidate in able)
    holders = [c for c in able if model in c.names and c.open < least + c.batch]
    return min(holders or able, key=lambda c: (c.open, _rank(c.id, model)))


def _rank(replica: str, model: str) -> bytes:
    return hashlib.blake2b(f"{replica} {model}".encode(), digest_size=8).digest()
