"""A random sample of a stream of unknown length, bounded in number and in bytes."""

import heapq
import random
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Sample(Generic[Item]):
    """Keeps the items with the lowest of random priorities: each is as likely as any other.

    Large items take the room of several, and are as likely all the same.
    """

    def __init__(self, most: int, most_bytes: int, seed: int = 0) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._random = random.Random(seed)
        # Highest priority first, so that it is the first to go; places settle nothing but ties.
        self._kept: list[tuple[float, int, int, Item]] = []
        self._bytes = 0
        self._limit = 1.0
        self.seen = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Item]:
        """In the order of the stream."""
        return (item for _, _, _, item in sorted(self._kept, key=lambda kept: kept[1]))

    @property
    def is_all(self) -> bool:
        """Whether nothing was left out."""
        return len(self._kept) == self.seen

    def draw(self) -> float | None:
        """Priority of the next item of the stream; None where it need not be offered."""
        self.seen += 1
        priority = self._random.random()
        return priority if priority < self._limit else None

    def keep(self, priority: float, item: Item, size: int) -> None:
        """Take the item just drawn, of so many bytes, and let go of what has no room any more."""
        heapq.heappush(self._kept, (-priority, self.seen, size, item))
        self._bytes += size
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            priority, _, size, _ = heapq.heappop(self._kept)
            self._bytes -= size
            self._limit = -priority
