"""Which prompts' beginnings are known: blocks of tokens as a tree for each owner.

The owner is an adapter's version, so that nothing is ever shared between adapters. Policy only:
what is kept for a block is a payload, whatever it is. Pure Python.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

BLOCK = 16
"""Tokens of a block; only whole ones are kept."""

P = TypeVar("P")


@dataclass(eq=False)
class _Node(Generic[P]):
    parent: "_Node[P] | None"
    name: Hashable
    """The owner of a root, the tokens of a block."""
    payload: P | None = None
    children: "dict[Hashable, _Node[P]]" = field(default_factory=dict)


class PrefixTree(Generic[P]):
    """Blocks by owner and by all tokens up to their end, of which those used longest ago leave."""

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes
        self._roots: dict[Hashable, _Node[P]] = {}
        self._used: OrderedDict[_Node[P], None] = OrderedDict()
        """Blocks from the one used longest ago on; a block is always after those it begins."""

    @property
    def bytes(self) -> int:
        """Size of all payloads."""
        return len(self._used) * self._block_bytes

    def match(self, owner: Hashable, tokens: Sequence[int]) -> list[P]:
        """Payloads of the longest known beginning, block by block."""
        path = self._path(owner, tokens)
        self._touch(path)
        return [node.payload for node in path if node.payload is not None]

    def insert(
        self, owner: Hashable, tokens: Sequence[int], payload: Callable[[int], P], limit: int
    ) -> None:
        """Keep the whole blocks of `tokens` that are new, within `limit` bytes.

        payload(i) is called for block i. What was used longest ago leaves first; what does not fit
        even so is not kept.
        """
        most = limit // self._block_bytes
        path = self._path(owner, tokens)
        if most <= len(path) or len(tokens) < BLOCK:
            self._touch(path)
            self.shrink(limit)
            return
        node = path[-1] if path else self._roots.setdefault(owner, _Node(None, owner))
        for i, name in enumerate(_blocks(tokens)):
            if i >= len(path) and i < most:
                new = _Node(node, name, payload(i))
                node.children[name] = new
                path.append(new)
            node = path[min(i, len(path) - 1)]
        self._touch(path)
        self.shrink(limit)

    def shrink(self, limit: int) -> None:
        """Drop the blocks used longest ago until the rest has at most `limit` bytes."""
        while self.bytes > limit:
            node, _ = self._used.popitem(last=False)
            assert node.parent is not None
            del node.parent.children[node.name]
            if node.parent.parent is None and not node.parent.children:
                del self._roots[node.parent.name]

    def _path(self, owner: Hashable, tokens: Sequence[int]) -> list[_Node[P]]:
        path: list[_Node[P]] = []
        node = self._roots.get(owner)
        for name in _blocks(tokens):
            node = None if node is None else node.children.get(name)
            if node is None:
                break
            path.append(node)
        return path

    def _touch(self, path: Sequence[_Node[P]]) -> None:
        """From the last to the first, so that the oldest block of all never begins another."""
        for node in reversed(path):
            self._used[node] = None
            self._used.move_to_end(node)


def _blocks(tokens: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        yield tuple(tokens[start : start + BLOCK])
