"""Versions on their way into the bank and out of it: one load for all who ask, room made first."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from raylora.errors import NotFound, RayloraError
from raylora.lora.adapter_config import chat_template
from raylora.lora.bank.eviction import Held, NoRoom, victims
from raylora.lora.integrity import AdapterFacts
from raylora.serve.adapters.folders import Folders
from raylora.serve.adapters.resident import AdapterState, Resident

log = logging.getLogger(__name__)


MakeRoom = Callable[[int], Awaitable[None]]
"""Unloads others so that so many bytes fit; raises RayloraError where that cannot be."""


class Shelf(Protocol):
    """Where versions come from: the registry and the disk. Blocking; the seam for tests."""

    def fetch(self, reference: str) -> Path:
        """Folder of name@7 or run:id. Raises NotFound, InvalidAdapter, Unreachable."""
        ...


class Slots(Protocol):
    """Where versions go: the bank, reached from any task."""

    capacity: int
    """Versions held at once."""

    async def add(
        self,
        key: str,
        directory: Path,
        make_room: MakeRoom,
        *,
        manifest_required: bool = True,
    ) -> AdapterFacts:
        """Check, then await make_room(bytes), then load. Raises InvalidAdapter."""
        ...

    async def remove(self, key: str) -> None:
        """Unload."""
        ...

    def tier(self, key: str) -> str:
        """Where a version's tensors are: device, host or disk."""
        ...


class Loading:
    """Every version that was asked for, and who is on its way."""

    def __init__(
        self,
        shelf: Shelf,
        slots: Slots,
        folders: Folders,
        pinned: Callable[[], set[str]],
        max_bytes: int | None,
    ) -> None:
        """`pinned` versions never make room. max_bytes: of host memory; None has no end."""
        self.residents: dict[str, Resident] = {}
        self._shelf = shelf
        self._slots = slots
        self._folders = folders
        self._pinned = pinned
        self._max_bytes = max_bytes
        self._loads: dict[str, asyncio.Task[Resident]] = {}
        self._room = asyncio.Lock()

    async def loaded(self, key: str) -> Resident:
        """The version, once loaded; all who ask for it wait for one load. Raises RayloraError."""
        resident = self.residents.get(key)
        if resident is not None and resident.state.is_loaded:
            return resident
        if resident is not None and resident.failed_lately:
            assert resident.error is not None
            # Else it would grow by the frames of everyone whom it was raised for.
            raise resident.error.with_traceback(None)
        if key not in self._loads:
            self._loads[key] = asyncio.ensure_future(self._load(key))
        # A client that goes away must not take the load from those who wait with it.
        return await asyncio.shield(self._loads[key])

    async def settled(self, key: str) -> Resident | None:
        """The version once it is not being loaded any more; None where it is not held."""
        if load := self._loads.get(key):
            await asyncio.wait([load])
        return self.residents.get(key)

    async def leave(self, resident: Resident) -> None:
        """Take a draining version out of the bank, unless it is wanted again."""
        async with self._room:
            # In between a request may have come for it, or it has left and is loaded anew.
            if (
                self.residents.get(resident.key) is resident
                and resident.state is AdapterState.DRAINING
                and resident.in_use == 0
            ):
                await self._unload([resident.key])
                log.info("%s has left", resident.key)

    async def _load(self, key: str) -> Resident:
        resident = self.residents.setdefault(key, Resident(key))
        resident.state, resident.error = AdapterState.LOADING, None
        started = time.monotonic()
        folder = self._folders.path(key)
        try:
            directory = folder or await asyncio.to_thread(self._shelf.fetch, key)
            resident.chat_template = await asyncio.to_thread(chat_template, directory)
            async with self._room:
                resident.facts = await self._slots.add(
                    key,
                    directory,
                    partial(self._make_room, resident),
                    manifest_required=folder is None,
                )
                resident.state = AdapterState.READY
        except NotFound:
            del self.residents[key]
            raise
        except RayloraError as error:
            resident.state, resident.error = AdapterState.FAILED, error
            raise
        except Exception as error:
            log.exception("%s cannot be loaded", key)
            failure = RayloraError(f"{key} cannot be loaded: {error}")
            resident.state, resident.error = AdapterState.FAILED, failure
            raise failure from error
        finally:
            resident.touched = time.monotonic()
            del self._loads[key]
        log.info("%s loaded in %.2f s", key, time.monotonic() - started)
        return resident

    async def _make_room(self, resident: Resident, wanted: int) -> None:
        """Unload versions used longest ago that answer nobody, where the bank is full."""
        pinned = self._pinned()
        held = sorted(
            (r for r in self.residents.values() if r.state.is_loaded), key=lambda r: r.touched
        )
        busy = {r.key for r in held if r.in_use or r.key in pinned}
        sizes = [Held(r.key, r.memory, r.key in busy) for r in held]
        leaving = victims(sizes, wanted, self._max_bytes)
        if len(held) - len(leaving) >= self._slots.capacity:
            idle = [r.key for r in held if r.key not in busy and r.key not in leaving]
            if not idle:
                raise NoRoom(
                    f"all {len(held)} adapter slots are pinned or answering requests",
                    hint="try again when one is free",
                )
            leaving.append(idle[0])
        resident.memory = wanted
        await self._unload(leaving)

    async def _unload(self, keys: list[str]) -> None:
        # All at once: what is not among them any more is not taken by a request meanwhile.
        for key in keys:
            self.residents.pop(key).state = AdapterState.KNOWN
        for key in keys:
            await self._slots.remove(key)
