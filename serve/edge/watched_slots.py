"""The bank's slots, with what they do counted."""

import time
from pathlib import Path

from raylora.lora.integrity import AdapterFacts
from raylora.serve.adapters.loading import MakeRoom, Slots
from raylora.serve.edge.metrics import Metrics


class WatchedSlots:
    """Other slots, whose loads and evictions the metrics tell of."""

    def __init__(self, slots: Slots, metrics: Metrics) -> None:
        self._slots = slots
        self._metrics = metrics
        self.capacity = slots.capacity

    async def add(
        self, key: str, directory: Path, make_room: MakeRoom, *, manifest_required: bool = True
    ) -> AdapterFacts:
        """Check, make room and load."""
        started = time.monotonic()
        try:
            facts = await self._slots.add(
                key, directory, make_room, manifest_required=manifest_required
            )
        except Exception:
            self._metrics.refused(key)
            raise
        self._metrics.loaded(key, time.monotonic() - started)
        return facts

    async def remove(self, key: str) -> None:
        """Unload."""
        await self._slots.remove(key)
        self._metrics.evicted(key)

    def tier(self, key: str) -> str:
        """Where its tensors are."""
        return self._slots.tier(key)
