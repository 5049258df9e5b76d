"""Keys and values of prompts' beginnings, for the next request that begins the same way."""

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Protocol

import torch

from raylora.engine.prefixes import BLOCK, PrefixTree


class Prefixes(Protocol):
    """What is known of prompts' beginnings."""

    @property
    def bytes(self) -> int:
        """Size of all that is kept."""
        ...

    def known(self, owner: Hashable, prompt: Sequence[int]) -> torch.Tensor | None:
        """Of the prompt's longest known beginning, its last token excluded; None for none."""
        ...

    def keep(
        self,
        owner: Hashable,
        tokens: Sequence[int],
        read: Callable[[], torch.Tensor],
        limit: int,
    ) -> None:
        """Keep what is new of `tokens` within `limit` bytes; read() gives keys and values."""
        ...

    def shrink(self, limit: int) -> None:
        """Drop what was used longest ago until the rest has at most `limit` bytes."""
        ...


class NoPrefixCache:
    """Keeps nothing."""

    bytes = 0

    def known(self, owner: Hashable, prompt: Sequence[int]) -> None:
        """Nothing."""

    def keep(self, owner: Hashable, tokens: Sequence[int], read: object, limit: int) -> None:
        """Nothing is kept."""

    def shrink(self, limit: int) -> None:
        """There is nothing."""


class PrefixCache:
    """Tensors in the tree of prefixes, [layers, 2, heads, BLOCK, size] a block."""

    def __init__(self, token_bytes: int) -> None:
        self._tree = PrefixTree[torch.Tensor](BLOCK * token_bytes)

    @property
    def bytes(self) -> int:
        """See Prefixes."""
        return self._tree.bytes

    def known(self, owner: Hashable, prompt: Sequence[int]) -> torch.Tensor | None:
        """See Prefixes."""
        blocks = self._tree.match(owner, prompt[:-1])
        return torch.cat(blocks, dim=3) if blocks else None

    def keep(
        self,
        owner: Hashable,
        tokens: Sequence[int],
        read: Callable[[], torch.Tensor],
        limit: int,
    ) -> None:
        """See Prefixes."""
        whole = cache(read)

        def block(number: int) -> torch.Tensor:
            start = number * BLOCK
            return whole()[:, :, :, start : start + BLOCK].clone()

        self._tree.insert(owner, tokens, block, limit)

    def shrink(self, limit: int) -> None:
        """See Prefixes."""
        self._tree.shrink(limit)
