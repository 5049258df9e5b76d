"""Which slot of a stack holds which adapter: pure bookkeeping, no tensors."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field


@dataclass
class SlotTable:
    """Slots 0 to capacity, one adapter each.

    A slot keeps its adapter after the adapter has left the batch, until it is wanted for another.
    """

    capacity: int = 0
    version: int = 0
    """Counts changes of any slot."""
    _slots: dict[str, int] = field(default_factory=dict[str, int])
    """In order of their last use."""
    _batch: Collection[str] = ()
    """Keys of the last `place_together`."""

    def __getitem__(self, key: str) -> int:
        return self._slots[key]

    def __contains__(self, key: object) -> bool:
        return key in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    def window(self, keys: Sequence[str]) -> range:
        """The slots from the first to the last that hold one of `keys`."""
        slots = [self._slots[key] for key in keys]
        return range(min(slots), max(slots) + 1)

    def place_together(self, keys: Sequence[str]) -> list[str]:
        """Give the running batch slots that lie close together: at most a quarter more than keys.

        Returns the keys whose tensors must be copied into their slots. As rows leave a batch,
        about one adapter is moved for each that left.
        """
        self._batch = keys
        return self._place(keys, range(len(keys) + len(keys) // 4))

    def place(self, keys: Sequence[str]) -> list[str]:
        """Give keys slots anywhere, none of them one of the running batch's."""
        return self._place(keys, range(self.capacity), spared=self._batch)

    def forget(self, key: str) -> None:
        """Drop a key that left the bank, so that its name can come back with other tensors."""
        if self._slots.pop(key, None) is not None:
            self.version += 1

    def _place(self, keys: Sequence[str], reach: range, spared: Collection[str] = ()) -> list[str]:
        moving = [key for key in keys if self._slots.get(key, -1) not in reach]
        for key in keys:
            if key in self._slots:
                self._slots[key] = self._slots.pop(key)
        if not moving:
            return []
        for key in moving:
            self._slots.pop(key, None)
        kept = {self._slots[key] for key in (*keys, *spared) if key in self._slots}
        self._grow(len(kept) + len(moving))
        # Slots that were added lie beyond the reach of those who take any.
        near = range(self.capacity) if reach.stop < len(kept) + len(moving) else reach
        holders = {slot: key for key, slot in self._slots.items()}
        age = {slot: at for at, slot in enumerate(self._slots.values())}
        free = [slot for slot in near if slot not in kept and slot < self.capacity]
        free.sort(key=lambda slot: (age.get(slot, -1), slot))
        for key, slot in zip(moving, free, strict=False):
            if slot in holders:
                del self._slots[holders[slot]]
            self._slots[key] = slot
        self.version += 1
        return moving

    def _grow(self, slots: int) -> None:
        if self.capacity < slots:
            self.capacity = max(slots, self.capacity + self.capacity // 2, 4)
