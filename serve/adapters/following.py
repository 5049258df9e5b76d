"""An alias that moved: the new version is loaded first, then requests are led to it."""

import asyncio
import logging
from typing import Protocol

from raylora.errors import RayloraError
from raylora.serve.adapters.catalogue import Catalogue, Move
from raylora.serve.adapters.resident import Resident

log = logging.getLogger(__name__)


class Holder(Protocol):
    """Who holds the versions: Residency."""

    def held(self, key: str) -> Resident | None:
        """The version, if it was asked for."""
        ...

    async def loaded(self, key: str) -> Resident:
        """The version, loaded if need be. Raises RayloraError."""
        ...

    async def retire(self, resident: Resident) -> None:
        """Let it leave once it answers nobody, unless a name still means it."""
        ...


class Follower:
    """Follows the registry's moves on one replica, each one once."""

    def __init__(self, catalogue: Catalogue, holder: Holder) -> None:
        self._catalogue = catalogue
        self._holder = holder
        self._begun: dict[Move, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Ask the registry again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._catalogue.fresh_s)
            await self._catalogue.refresh(self._catalogue.fresh_s / 2)
            self.begin()

    def begin(self) -> None:
        """Begin to follow what moved. With nothing to keep warm that is done at once."""
        for move in tuple(self._catalogue.moves):
            old, new = self._holder.held(move.before), self._holder.held(move.after)
            if old is None or not old.state.is_loaded:
                self._catalogue.follow(move)
            elif move not in self._begun and not (new and new.failed_lately):
                self._begun[move] = asyncio.ensure_future(self._follow(move, old))

    async def _follow(self, move: Move, old: Resident) -> None:
        """Where the new version cannot be loaded, requests stay with the old one."""
        try:
            new = await self._holder.loaded(move.after)
        except RayloraError as error:
            log.error("%s stays at %s: %s", move.pointer, move.before, error.message)
            return
        finally:
            del self._begun[move]
        if move not in self._catalogue.moves:
            # Meanwhile it moved on, or back: what was loaded for it is wanted no more.
            await self._holder.retire(new)
            return
        new.asked_as.add(str(move.pointer))
        self._catalogue.follow(move)
        log.info("%s moved from %s to %s", move.pointer, move.before, move.after)
        await self._holder.retire(old)
