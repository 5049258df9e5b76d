"""A sample of a stream of unknown length, bounded in number and in bytes."""

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Sample(Generic[Item]):
    """Keeps the items of the lowest priorities; with random ones each is as likely as any other.

    Large items take the room of several, and are as likely all the same.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        # The highest priority first, for it is the first to go.
        self._kept: list[tuple[float, int, int, Item]] = []
        self._bytes = 0
        self._offered = 0
        self.limit = 1.0
        """An item of this priority or above need not be offered."""

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Item]:
        """In the order in which they came."""
        return (item for _, _, _, item in sorted(self._kept, key=lambda kept: kept[1]))

    def offer(self, priority: float, item: Item, size: int) -> None:
        """Take an item of so many bytes, and let go of what has no room any more."""
        self._offered += 1
        heapq.heappush(self._kept, (-priority, self._offered, size, item))
        self._bytes += size
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            priority, _, size, _ = heapq.heappop(self._kept)
            self._bytes -= size
            self.limit = -priority
