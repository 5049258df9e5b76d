"""Versions from the registry to this machine's disk, and from there into the bank."""

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

from raylora.errors import InvalidAdapter
from raylora.lora import manifest
from raylora.lora.bank.bank import Bank
from raylora.lora.integrity import AdapterFacts
from raylora.serve.adapters.loading import MakeRoom
from raylora.serve.engine_thread import EngineThread
from raylora.tracking.adapters.reference import RUN, is_run
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.adapters.run_adapter import download_run_adapter, run_folder


class RegistryShelf:
    """Fetches into a cache folder that outlives the process."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder

    def fetch(self, reference: str) -> Path:
        """Folder of a version or of a run's adapter, downloaded once."""
        if is_run(reference):
            return self._fetch_run(reference.removeprefix(RUN))
        return self._registry.download(self._registry.resolve(reference), self._folder)

    def _fetch_run(self, run_id: str) -> Path:
        """A run that goes on may hold half an adapter: only a whole one is kept."""
        final = self._folder / run_folder(self._registry.uri, run_id)
        if final.is_dir():
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=".fetch-") as folder:
            fetched = download_run_adapter(self._registry.uri, run_id, Path(folder))
            if fault := manifest.find_fault(fetched):
                raise InvalidAdapter(f"run {run_id}: {fault}", hint="wait until the run has ended")
            # A rename onto a filled folder fails: then another process was first.
            with suppress(OSError):
                fetched.rename(final)
        return final


class BankSlots:
    """The bank from any task: it belongs to the engine's thread, between two steps.

    What takes time, reading and checking and converting, is done beside that thread.
    """

    def __init__(self, bank: Bank, thread: EngineThread, capacity: int) -> None:
        self._bank = bank
        self._thread = thread
        self.capacity = capacity

    async def add(
        self,
        key: str,
        directory: Path,
        make_room: MakeRoom,
        *,
        manifest_required: bool = True,
    ) -> AdapterFacts:
        """Check, make room and load: a bad adapter unloads none."""
        prepared = await asyncio.to_thread(
            self._bank.prepare, directory, manifest_required=manifest_required
        )
        await make_room(prepared.weights.bytes)
        await self._thread.call(lambda: self._bank.admit(key, prepared))
        return prepared.facts

    async def remove(self, key: str) -> None:
        """Unload."""
        await self._thread.call(lambda: self._bank.remove(key))

    def tier(self, key: str) -> str:
        """Where its tensors are."""
        return self._bank.tier(key)
