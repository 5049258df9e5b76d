"""Versions from the registry to this machine's disk, and from there into the bank."""

from pathlib import Path

from raylora.lora.bank import Bank
from raylora.lora.integrity import AdapterFacts
from raylora.serve.engine_thread import EngineThread
from raylora.tracking.registry import Registry


class RegistryShelf:
    """Fetches into a cache folder that outlives the process."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder

    def fetch(self, reference: str) -> Path:
        """Folder of a version, downloaded once."""
        return self._registry.download(self._registry.resolve(reference), self._folder)


class BankSlots:
    """Loads and unloads between two steps, on the engine's thread: a bank belongs to one."""

    def __init__(self, bank: Bank, thread: EngineThread, capacity: int) -> None:
        self._bank = bank
        self._thread = thread
        self.capacity = capacity

    async def add(self, key: str, directory: Path) -> AdapterFacts:
        """Check and load."""
        return await self._thread.call(lambda: self._bank.add(key, directory))

    async def remove(self, key: str) -> None:
        """Unload."""
        await self._thread.call(lambda: self._bank.remove(key))
