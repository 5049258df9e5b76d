"""Which adapters the registry has and where their aliases point, a few seconds old at most."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from raylora.errors import RayloraError
from raylora.tracking.nearest import not_found
from raylora.tracking.reference import Reference
from raylora.tracking.registry import CHAMPION
from raylora.tracking.version import AdapterSummary

log = logging.getLogger(__name__)

FRESH_S = 2.0
"""An alias that moves is followed after this long. Nothing is asked while nobody asks us."""
PATIENCE_S = 1.0
"""Longest wait of a request for the registry; then what was known before counts."""


class Catalogue:
    """Resolves references without a registry call per request."""

    def __init__(
        self, read: Callable[[], Sequence[AdapterSummary]], only: frozenset[str] = frozenset()
    ) -> None:
        """Make one of what `read` lists; `only` these names, or all where it is empty."""
        self._read = read
        self._only = only
        self._known: dict[str, AdapterSummary] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    @property
    def known(self) -> Mapping[str, AdapterSummary]:
        """What the last read found, by name."""
        return self._known

    async def number(self, reference: Reference) -> int:
        """The version number a reference means. Raises NotFound with the nearest names."""
        await self.refresh()
        summary = self._known.get(reference.name)
        if summary is None:
            raise not_found("model", str(reference), self._known)
        if reference.version is not None:
            if reference.version > summary.newest:
                newest = [f"{reference.name}@{summary.newest}"]
                raise not_found("version", str(reference), newest)
            return reference.version
        if reference.alias is None:
            return summary.aliases.get(CHAMPION, summary.newest)
        if reference.alias not in summary.aliases:
            aliases = [f"{reference.name}@{alias}" for alias in summary.aliases]
            raise not_found("alias", str(reference), aliases)
        return summary.aliases[reference.alias]

    async def refresh(self) -> None:
        """Read the registry if the last time is too long ago; one read serves all who wait."""
        if time.monotonic() - self._read_at < FRESH_S:
            return
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read_once())
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reading), PATIENCE_S)

    async def _read_once(self) -> None:
        try:
            found = await asyncio.to_thread(self._read)
            self._known = {
                summary.name: summary
                for summary in found
                if summary.newest and (not self._only or summary.name in self._only)
            }
        except RayloraError as error:
            log.warning("the registry does not answer, going on with what is known: %s", error)
        finally:
            self._read_at = time.monotonic()
            self._reading = None
