"""Which version a request's `model` means, held for it: the names, and who still wants which."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from raylora.errors import InvalidAdapter, InvalidConfig, NotFound, RayloraError
from raylora.serve.adapters.catalogue import Catalogue
from raylora.serve.adapters.folders import Folders
from raylora.serve.adapters.following import Follower
from raylora.serve.adapters.loading import Loading, Shelf, Slots
from raylora.serve.adapters.remembered import Memory, NoMemory, Remembered
from raylora.serve.adapters.resident import AdapterState, Lease, Resident
from raylora.tracking.adapters.reference import is_run, parse

log = logging.getLogger(__name__)

START_S = 60.0
"""Longest wait for the registry before a replica takes requests."""


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
        self._slots = slots
        self._memory = memory or NoMemory()
        self._writing = asyncio.Lock()
        self._restoring = False
        self._pins: set[str] = set()
        self.rolled_back: set[str] = set()
        self._loading = Loading(shelf, slots, folders, lambda: self.pinned, max_bytes)
        self._residents = self._loading.residents
        self._follower = Follower(catalogue, self)
        self._background: set[asyncio.Task[None]] = set()

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
                known = model in resident.asked_as
                if not known:
                    resident.asked_as.add(model)
                    self._in_background(self._remember())
                if not known or resident.state is not AdapterState.READY:
                    # Not wanted where the name moved on while this request was on its way.
                    wanted = self._is_wanted(resident)
                    resident.state = AdapterState.READY if wanted else AdapterState.DRAINING
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
        await self.catalogue.refresh(0, patience_s=START_S)
        before = await asyncio.to_thread(self._memory.read)
        self._pins, self.rolled_back = set(before.pins), set(before.rolled_back)
        self.folders.restore(before.folders)
        champions = list(self.catalogue.known)[: self._slots.capacity]
        wanted = [*references, *before.pins, *before.asked] or champions
        # What is remembered stays as it was until all is there again.
        self._restoring = True
        for reference in dict.fromkeys(wanted):
            try:
                (await self.acquire(reference)).release()
            except RayloraError as error:
                log.error("%s is not served: %s", reference, error.message)
        self._restoring = False
        await self._remember()

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
        resident = None if key is None else await self._loading.settled(key)
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

    async def loaded(self, key: str) -> Resident:
        """The version, loaded if need be. Raises RayloraError."""
        return await self._loading.loaded(key)

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
            await self._loading.leave(resident)

    def _leave_if_draining(self, resident: Resident) -> None:
        if resident.state is AdapterState.DRAINING:
            self._in_background(self._loading.leave(resident))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _remember(self) -> None:
        """One after another, so that what is written last is the newest."""
        if self._restoring:
            return
        async with self._writing:
            await asyncio.to_thread(self._memory.write, self._remembered())

    def _remembered(self) -> Remembered:
        """By the names that were asked for, so that aliases that move meanwhile are followed."""
        asked = {
            name
            for resident in self._residents.values()
            if resident.state is AdapterState.READY
            for name in resident.asked_as
            if self.meaning(name) == resident.key
        }
        return Remembered(
            pins=tuple(sorted(self._pins)),
            asked=tuple(sorted(asked)),
            folders=self.folders.keys,
            rolled_back=tuple(sorted(self.rolled_back)),
        )
