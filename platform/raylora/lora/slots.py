"""Which rows of the stacked tensors hold which adapter: pure bookkeeping, no tensors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass
class SlotTable:
    """Adapters packed into rows [0, capacity); an adapter of rank r has r rows in one piece.

    A slot keeps its adapter after the adapter has left the batch, until its rows are wanted.
    """

    capacity: int = 0
    version: int = 0
    """Counts changes of any slot."""
    _slots: dict[str, range] = field(default_factory=dict[str, range])

    def __getitem__(self, key: str) -> range:
        return self._slots[key]

    def extent(self, keys: Mapping[str, int]) -> int:
        """Rows [0, extent) hold every slot of `keys`."""
        return max((self._slots[key].stop for key in keys), default=0)

    def place(self, ranks: Mapping[str, int]) -> list[str]:
        """Give every key a slot; returns the keys whose tensors must be copied into theirs.

        Slots in use stay where they are and others are given up as needed. All is packed anew when
        the rows do not fit, in twice the capacity, or when over half of the extent is not needed.
        """
        new = [key for key in ranks if key not in self._slots]
        if new and not self._fit(new, ranks):
            return self._repack(ranks)
        if self.extent(ranks) > 2 * sum(ranks.values()):
            return self._repack(ranks)
        return new

    def forget(self, key: str) -> None:
        """Drop a key that left the bank, so that its name can come back with other tensors."""
        if self._slots.pop(key, None) is not None:
            self.version += 1

    def _fit(self, new: list[str], ranks: Mapping[str, int]) -> bool:
        kept = {key: slot for key, slot in self._slots.items() if key in ranks}
        for key in new:
            start = _first_gap(kept.values(), ranks[key], self.capacity)
            if start is None:
                return False
            kept[key] = range(start, start + ranks[key])
            self._slots = {
                old: slot
                for old, slot in self._slots.items()
                if slot.stop <= start or slot.start >= start + ranks[key]
            }
            self._slots[key] = kept[key]
        self.version += 1
        return True

    def _repack(self, ranks: Mapping[str, int]) -> list[str]:
        self._slots = {}
        start = 0
        for key, rank in ranks.items():
            self._slots[key] = range(start, start + rank)
            start += rank
        while self.capacity < start:
            self.capacity = max(64, 2 * self.capacity)
        self.version += 1
        return list(ranks)


def _first_gap(taken: Iterable[range], rank: int, capacity: int) -> int | None:
    start = 0
    for slot in sorted(taken, key=lambda slot: slot.start):
        if slot.start - start >= rank:
            return start
        start = slot.stop
    return start if capacity - start >= rank else None
