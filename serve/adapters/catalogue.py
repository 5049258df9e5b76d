"""Which adapters the registry has, and where their aliases lead requests on this replica."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from raylora.errors import RayloraError
from raylora.tracking.adapters.reference import Reference
from raylora.tracking.adapters.registry import CHAMPION
from raylora.tracking.adapters.version import AdapterSummary
from raylora.tracking.nearest import not_found

log = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""Longest wait of a request for the registry; then what was known before counts."""
MISS_S = 0.5
"""A name that is not known may be new: the registry is asked again, this often at most."""


@dataclass(frozen=True)
class Move:
    """The registry says that a name or an alias means another version than it does here."""

    pointer: Reference
    """name or name@alias."""
    before: str
    """name@version."""
    after: str


class Catalogue:
    """Resolves references without a registry call per request.

    What the registry says counts at once for names and aliases that are new. One that moves goes
    on meaning the old version until `follow` is called, so that the new one can be loaded first.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[AdapterSummary]],
        only: frozenset[str] = frozenset(),
        *,
        fresh_s: float,
    ) -> None:
        """Make one of what `read` lists.

        only: names, and run:ID of runs, that are served; everything where it is empty.
        """
        self._read = read
        self._only = only
        self.fresh_s = fresh_s
        """What was read is asked for again after this long."""
        self._known: dict[str, AdapterSummary] = {}
        self._meanings: dict[Reference, int] = {}
        self._moves: list[Move] | None = None
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._begun_at = 0.0
        """When the read that is running began."""
        self._failure: RayloraError | None = None
        """Why nothing is known, as long as no read has succeeded."""
        self._has_read = False

    @property
    def known(self) -> Mapping[str, AdapterSummary]:
        """What the last read found, by name."""
        return self._known

    @property
    def moves(self) -> Sequence[Move]:
        """Where the registry says otherwise than requests are led here.

        Asked at each request, and found only when it may have changed: 7 ms for 1,000 names.
        """
        if self._moves is None:
            self._moves = [
                Move(pointer, f"{pointer.name}@{here}", f"{pointer.name}@{there}")
                for pointer, there in self._pointers()
                if (here := self._meanings[pointer]) != there
            ]
        return self._moves

    def follow(self, move: Move) -> None:
        """From now on the pointer means what the registry said."""
        self._meanings[move.pointer] = int(move.after.rpartition("@")[2])
        self._moves = None

    def meaning(self, reference: Reference) -> str | None:
        """The name@version that a reference means here, by what is known; None if nothing."""
        summary = self._known.get(reference.name)
        if summary is None:
            return None
        if reference.version is not None:
            return str(reference) if reference.version <= summary.newest else None
        number = self._meanings.get(reference)
        return None if number is None else f"{reference.name}@{number}"

    def aliases(self, name: str, number: int) -> list[str]:
        """The aliases that mean this version here."""
        summary = self._known.get(name)
        known = () if summary is None else summary.aliases
        return [alias for alias in known if self._meanings[Reference(name, alias=alias)] == number]

    async def find(self, reference: Reference) -> str:
        """The name@version that a reference means.

        Raises NotFound with the nearest names, Unreachable where nothing could be read yet.
        """
        await self.refresh(2 * self.fresh_s)
        found = self.meaning(reference)
        if found is None:
            await self.refresh(MISS_S)
            found = self.meaning(reference)
        return found or self._missing(reference)

    def require_run(self, model: str) -> None:
        """Raise NotFound where this endpoint does not serve the run that run:ID names."""
        if self._only and model not in self._only:
            raise not_found("model", model, self._only)

    async def refresh(self, max_age_s: float, *, patience_s: float | None = None) -> None:
        """Read the registry if the last time is too long ago; one read serves all who wait.

        A read that hangs delays those who come later no more.
        """
        if time.monotonic() - self._read_at < max_age_s:
            return
        if self._reading is None:
            self._begun_at = time.monotonic()
            self._reading = asyncio.ensure_future(self._read_once())
        patience_s = PATIENCE_S if patience_s is None else patience_s
        left_s = patience_s - (time.monotonic() - self._begun_at)
        if left_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reading), left_s)

    async def _read_once(self) -> None:
        try:
            found = await asyncio.to_thread(self._read)
            self._known = {
                summary.name: summary
                for summary in found
                if summary.newest and (not self._only or summary.name in self._only)
            }
            self._meanings = {
                pointer: self._meanings.get(pointer, number)
                for pointer, number in self._pointers()
            }
            self._moves = None
            self._failure, self._has_read = None, True
        except RayloraError as error:
            log.warning("the registry does not answer, going on with what is known: %s", error)
            self._failure = None if self._has_read else error
        finally:
            self._read_at = time.monotonic()
            self._reading = None

    def _pointers(self) -> Iterator[tuple[Reference, int]]:
        """Every name and alias, with the version that the registry says it means."""
        for name, summary in self._known.items():
            yield Reference(name), summary.aliases.get(CHAMPION, summary.newest)
            for alias, number in summary.aliases.items():
                yield Reference(name, alias=alias), number

    def _missing(self, reference: Reference) -> str:
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        summary = self._known.get(reference.name)
        if summary is None:
            raise not_found("model", str(reference), self._known)
        if reference.version is not None:
            newest = [f"{reference.name}@{summary.newest}"]
            raise not_found("version", str(reference), newest)
        aliases = [f"{reference.name}@{alias}" for alias in summary.aliases]
        raise not_found("alias", str(reference), aliases)
