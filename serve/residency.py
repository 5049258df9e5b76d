"""Which adapter versions are in the bank: loaded at start and on demand, oldest out first."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from raylora.errors import InvalidAdapter, InvalidConfig, NotFound, RayloraError
from raylora.lora.adapter_config import CHAT_TEMPLATE
from raylora.lora.integrity import AdapterFacts
from raylora.serve.catalogue import Catalogue
from raylora.tracking.reference import Reference, parse

log = logging.getLogger(__name__)

RETRY_S = 30.0
"""A version that could not be loaded is not tried again for this long."""


class AdapterState(StrEnum):
    """Where a version is on its way into the bank."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class Shelf(Protocol):
    """Where versions come from: the registry and the disk. Blocking; the seam for tests."""

    def fetch(self, reference: str) -> Path:
        """Folder with a version, name@7. Raises NotFound, InvalidAdapter, Unreachable."""
        ...


class Slots(Protocol):
    """Where versions go: the bank, reached from any task."""

    capacity: int
    """Versions held at once."""

    async def add(self, key: str, directory: Path) -> AdapterFacts:
        """Check and load. Raises InvalidAdapter."""
        ...

    async def remove(self, key: str) -> None:
        """Unload."""
        ...


@dataclass
class Resident:
    """A version that was asked for."""

    key: str
    """name@version, which is also its key in the bank."""
    state: AdapterState = AdapterState.LOADING
    facts: AdapterFacts | None = None
    chat_template: str | None = None
    """What it was trained with, where that is not the base's."""
    error: RayloraError | None = None
    in_use: int = 0
    requests: int = 0
    last_used: datetime | None = None
    touched: float = field(default_factory=time.monotonic)

    @property
    def system_prompt(self) -> str | None:
        """What it was trained with, from its lineage; offered to clients, never added by us."""
        value: Any = {} if self.facts is None else self.facts.lineage
        for key in ("data", "system_prompt"):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, str) else None

    @property
    def failed_lately(self) -> bool:
        """Whether loading it again is not worth a try yet."""
        return self.error is not None and time.monotonic() - self.touched < RETRY_S


class Lease:
    """One request's hold on the model that answers it; the version stays until it is released."""

    def __init__(self, name: str, resident: Resident | None) -> None:
        self.name = name
        """What answers: name@version, or the base's name."""
        self.resident = resident
        if resident is not None:
            resident.in_use += 1
            resident.requests += 1
            resident.touched = time.monotonic()
            resident.last_used = datetime.now(UTC)

    @property
    def adapter(self) -> str | None:
        """The key in the bank; None for the base."""
        return None if self.resident is None else self.resident.key

    @property
    def chat_template(self) -> str | None:
        """What it was trained with; None where that is the base's."""
        return None if self.resident is None else self.resident.chat_template

    def release(self) -> None:
        """The request has ended; to be called once."""
        if self.resident is not None:
            self.resident.in_use -= 1


class Residency:
    """Turns the `model` of a request into a loaded version."""

    def __init__(self, base: str, catalogue: Catalogue, shelf: Shelf, slots: Slots) -> None:
        self.base = base
        self.catalogue = catalogue
        self._shelf = shelf
        self._slots = slots
        self._residents: dict[str, Resident] = {}
        self._loads: dict[str, asyncio.Task[Resident]] = {}
        self._room = asyncio.Lock()

    @property
    def residents(self) -> Iterable[Resident]:
        """Every version that was asked for, in order of its name."""
        return [self._residents[key] for key in sorted(self._residents)]

    async def acquire(self, model: str) -> Lease:
        """A hold on what `model` means now. Raises NotFound, InvalidAdapter, Unreachable."""
        key = await self.resolve(model)
        if key is None:
            return Lease(self.base, None)
        while True:
            resident = await self._loaded(key)
            # Between the load and here it may have made room for another one.
            if self._residents.get(key) is resident:
                return Lease(key, resident)

    async def resolve(self, model: str) -> str | None:
        """The name@version that `model` means now, loaded or not; None for the base."""
        if model == self.base:
            return None
        reference = self._parsed(model)
        if str(reference) in self._residents:
            return str(reference)
        return f"{reference.name}@{await self.catalogue.number(reference)}"

    async def preload(self, references: Iterable[str]) -> None:
        """Load what the spec names, or every adapter's champion; what fails is logged and left."""
        await self.catalogue.refresh()
        for reference in list(references) or list(self.catalogue.known):
            try:
                (await self.acquire(reference)).release()
            except RayloraError as error:
                log.error("%s is not served: %s", reference, error.message)

    def _parsed(self, model: str) -> Reference:
        try:
            return parse(model)
        except InvalidConfig as error:
            raise NotFound(f"no model {model!r}", hint=error.problems[0].remedy) from error

    async def _loaded(self, key: str) -> Resident:
        """The resident, once loaded; all who ask for it wait for one load."""
        resident = self._residents.get(key)
        if resident is not None and resident.state is AdapterState.READY:
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
        try:
            directory = await asyncio.to_thread(self._shelf.fetch, key)
            async with self._room:
                await self._make_room()
                resident.facts = await self._slots.add(key, directory)
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
        return resident

    async def _make_room(self) -> None:
        """Unload the version that was used longest ago and answers nobody, if the bank is full."""
        ready = [r for r in self._residents.values() if r.state is AdapterState.READY]
        if len(ready) < self._slots.capacity:
            return
        idle = [resident for resident in ready if resident.in_use == 0]
        if not idle:
            raise InvalidAdapter(
                f"all {len(ready)} adapter slots are answering requests",
                hint="try again when one is free",
            )
        oldest = min(idle, key=lambda resident: resident.touched)
        del self._residents[oldest.key]
        await self._slots.remove(oldest.key)


def _chat_template(directory: Path) -> str | None:
    file = directory / CHAT_TEMPLATE
    return file.read_text(encoding="utf-8") if file.is_file() else None
