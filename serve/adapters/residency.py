"""Which adapter versions are in the bank: loaded at start, on demand and before an alias moves."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from raylora.errors import InvalidAdapter, InvalidConfig, NotFound, RayloraError
from raylora.lora.adapter_config import CHAT_TEMPLATE
from raylora.lora.eviction import Held, victims
from raylora.lora.integrity import AdapterFacts
from raylora.serve.adapters.catalogue import Catalogue
from raylora.serve.adapters.folders import Folders
from raylora.serve.adapters.following import Follower
from raylora.serve.adapters.remembered import Memory, NoMemory, Remembered
from raylora.serve.adapters.resident import AdapterState, Lease, Resident
from raylora.tracking.adapters.reference import is_run, parse

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


class Residency:
    """Turns the `model` of a request into a loaded version."""

    def __init__(
        self,
        base: str,
        catalogue: Catalogue,
        shelf: Shelf,
        slots: Slots,
        *,
        folders: Folders,
        memory: Memory | None = None,
        max_bytes: int | None = None,
    ) -> None:
        """max_bytes: of host memory for all versions together; None has no end."""
        self.base = base
        self.catalogue = catalogue
        self.folders = folders
        self._shelf = shelf
        self._slots = slots
        self._memory = memory or NoMemory()
        self._max_bytes = max_bytes
        self._residents: dict[str, Resident] = {}
        self._pins: set[str] = set()
        self.rolled_back: set[str] = set()
        self._loads: dict[str, asyncio.Task[Resident]] = {}
        self._follower = Follower(catalogue, self)
        self._background: set[asyncio.Task[None]] = set()
        self._room = asyncio.Lock()

    @property
    def residents(self) -> Iterable[Resident]:
        """Every version that was asked for, in order of its name."""
        return [self._residents[key] for key in sorted(self._residents)]

    def tier(self, resident: Resident) -> str | None:
        """Where its tensors are; None where they are not."""
        return self._slots.tier(resident.key) if resident.state.is_loaded else None

    @property
    def pinned(self) -> set[str]:
        """The versions that stay loaded: what the pinned names mean now."""
        meant = {self.meaning(model) for model in self._pins}
        return {key for key in meant if key is not None}

    async def acquire(self, model: str) -> Lease:
        """A hold on what `model` means now. Raises NotFound, InvalidAdapter, Unreachable."""
        key = await self.resolve(model)
        if key is None:
            return Lease(self.base, None)
        while True:
            resident = await self.loaded(key)
            # Between the load and here it may have made room for another one.
            if self._residents.get(key) is resident:
                resident.asked_as.add(model)
                # Not so where the name moved on while this request was on its way.
                if self._is_wanted(resident):
                    resident.state = AdapterState.READY
                return Lease(key, resident, self._leave_if_draining)

    async def resolve(self, model: str) -> str | None:
        """The name@version that `model` means now, loaded or not; None for the base."""
        if model == self.base:
            return None
        if model in self._residents:
            return model
        if key := self.folders.key(model):
            return key
        try:
            if is_run(model):
                self.catalogue.require_run(model)
                return model
            reference = parse(model)
        except InvalidConfig as error:
            raise NotFound(f"no model {model!r}", hint=error.problems[0].remedy) from error
        found = await self.catalogue.find(reference)
        self._follower.begin()
        return self.catalogue.meaning(reference) or found

    async def restore(self, references: Iterable[str]) -> None:
        """Load what this endpoint held before it was stopped, and what the spec names.

        Without either, the adapters' champions. What fails is logged and left.
        """
        await self.catalogue.refresh(0)
        before = await asyncio.to_thread(self._memory.read)
        self._pins, self.rolled_back = set(before.pins), set(before.rolled_back)
        self.folders.restore(before.folders)
        champions = list(self.catalogue.known)[: self._slots.capacity]
        wanted = [*references, *before.pins, *before.asked] or champions
        for reference in dict.fromkeys(wanted):
            try:
                (await self.acquire(reference)).release()
            except RayloraError as error:
                log.error("%s is not served: %s", reference, error.message)

    async def follow(self) -> None:
        """Follow the registry's aliases until cancelled, also while nobody asks."""
        await self._follower.run()

    def meaning(self, model: str) -> str | None:
        """As `resolve`, by what is known now; loads and asks nothing."""
        if model in self._residents:
            return model
        if key := self.folders.key(model):
            return key
        return model if is_run(model) else self.catalogue.meaning(parse(model))

    def remember_rollback(self, version: str) -> None:
        """A canary's version that is not to get requests any more, after a restart too."""
        self.rolled_back.add(version)
        self._in_background(self._remember())

    async def load(self, model: str, *, pin: bool) -> Resident:
        """Load what `model` means; with `pin` it stays, and moves with its alias."""
        lease = await self.acquire(model)
        lease.release()
        if lease.resident is None:
            raise NotFound(f"{model} is the base, not an adapter")
        if pin:
            self._pins.add(model)
        await self._remember()
        return lease.resident

    async def load_folder(self, name: str, folder: str) -> Resident:
        """Serve the adapter of a folder as `name`, pinned. Raises InvalidAdapter."""
        if name == self.base or name in self.catalogue.known:
            raise InvalidAdapter(f"the name {name} is taken", hint="choose another lora_name")
        key = await asyncio.to_thread(self.folders.add, name, folder)
        try:
            return await self.load(name, pin=True)
        except RayloraError:
            self._residents.pop(key, None)
            self.folders.remove(name)
            raise

    async def unload(self, model: str) -> Resident:
        """Let what `model` means leave once it answers nobody. Raises NotFound."""
        key = await self.resolve(model)
        resident = None if key is None else self._residents.get(key)
        if resident is None:
            raise NotFound(f"{model} is not loaded here")
        self._pins = {pin for pin in self._pins if self.meaning(pin) != key}
        if resident.state is AdapterState.FAILED:
            del self._residents[resident.key]
        elif resident.state.is_loaded:
            await self._drain(resident)
        self.folders.remove(model)
        await self._remember()
        return resident

    def held(self, key: str) -> Resident | None:
        """The version, if it was asked for."""
        return self._residents.get(key)

    async def retire(self, resident: Resident) -> None:
        """Let a version leave unless a name still means it."""
        if not self._is_wanted(resident):
            await self._drain(resident)
        await self._remember()

    def _is_wanted(self, resident: Resident) -> bool:
        """Whether a name that it was asked for by still means it, or a pinned one does."""
        names = resident.asked_as | self._pins
        return any(self.meaning(name) == resident.key for name in names)

    async def _drain(self, resident: Resident) -> None:
        resident.state = AdapterState.DRAINING
        if resident.in_use == 0:
            await self._leave(resident)

    def _leave_if_draining(self, resident: Resident) -> None:
        if resident.state is AdapterState.DRAINING:
            self._in_background(self._leave(resident))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _leave(self, resident: Resident) -> None:
        async with self._room:
            # In between a request may have come for it, or it has left and is loaded anew.
            if (
                self._residents.get(resident.key) is resident
                and resident.state is AdapterState.DRAINING
                and resident.in_use == 0
            ):
                del self._residents[resident.key]
                await self._slots.remove(resident.key)
                log.info("%s has left", resident.key)

    async def loaded(self, key: str) -> Resident:
        """The resident, once loaded; all who ask for it wait for one load."""
        resident = self._residents.get(key)
        if resident is not None and resident.state.is_loaded:
            return resident
        if resident is not None and resident.failed_lately:
            assert resident.error is not None
            raise resident.error
        if key not in self._loads:
            self._loads[key] = asyncio.ensure_future(self._load(key))
        # A client that goes away must not take the load from those who wait with it.
        return await asyncio.shield(self._loads[key])

    async def _load(self, key: str) -> Resident:
        resident = self._residents.setdefault(key, Resident(key))
        resident.state, resident.error = AdapterState.LOADING, None
        started = time.monotonic()
        folder = self.folders.path(key)
        try:
            directory = folder or await asyncio.to_thread(self._shelf.fetch, key)
            async with self._room:
                resident.facts = await self._slots.add(
                    key,
                    directory,
                    partial(self._make_room, resident),
                    manifest_required=folder is None,
                )
                resident.chat_template = _chat_template(directory)
                resident.state = AdapterState.READY
        except NotFound:
            del self._residents[key]
            raise
        except RayloraError as error:
            resident.state, resident.error = AdapterState.FAILED, error
            raise
        finally:
            resident.touched = time.monotonic()
            del self._loads[key]
        log.info("%s loaded in %.2f s", key, time.monotonic() - started)
        await self._remember()
        return resident

    async def _make_room(self, resident: Resident, wanted: int) -> None:
        """Unload versions used longest ago that answer nobody, where the bank is full."""
        pinned = self.pinned
        held = sorted(
            (r for r in self._residents.values() if r.state.is_loaded), key=lambda r: r.touched
        )
        busy = {r.key for r in held if r.in_use or r.key in pinned}
        sizes = [Held(r.key, r.memory, r.key in busy) for r in held]
        leaving = victims(sizes, wanted, self._max_bytes)
        if len(held) - len(leaving) >= self._slots.capacity:
            idle = [r.key for r in held if r.key not in busy and r.key not in leaving]
            if not idle:
                raise InvalidAdapter(
                    f"all {len(held)} adapter slots are pinned or answering requests",
                    hint="try again when one is free",
                )
            leaving.append(idle[0])
        resident.memory = wanted
        for key in leaving:
            del self._residents[key]
        for key in leaving:
            await self._slots.remove(key)

    async def _remember(self) -> None:
        """By the names that were asked for, so that aliases that move meanwhile are followed."""
        asked = {
            name
            for resident in self._residents.values()
            if resident.state is AdapterState.READY
            for name in resident.asked_as
            if self.meaning(name) == resident.key
        }
        state = Remembered(
            pins=tuple(sorted(self._pins)),
            asked=tuple(sorted(asked)),
            folders=self.folders.keys,
            rolled_back=tuple(sorted(self.rolled_back)),
        )
        await asyncio.to_thread(self._memory.write, state)


def _chat_template(directory: Path) -> str | None:
    file = directory / CHAT_TEMPLATE
    return file.read_text(encoding="utf-8") if file.is_file() else None
