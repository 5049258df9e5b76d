"""Which adapter the rows of a pass go through: one trains alone, or several side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from raylora.jobs.train.neighbours import neighbours

ALONE = "default"
"""PEFT's name of an adapter that has the base for itself."""


@dataclass(frozen=True)
class Part:
    """Tokens of a packed micro-batch, and the adapter that they go through."""

    adapter: str
    tokens: slice
    seed: int = 0
    """Of dropout in this pass."""

    def kept(self, layer: int, dropout: float, like: Tensor) -> Tensor | None:
        """Which elements of a layer's input dropout keeps; None for all.

        It depends on the seed, the layer and this part alone: not on what else is in the pass, nor
        on how often it is asked (activation checkpointing asks twice).
        """
        if not dropout:
            return None
        generator = torch.Generator(like.device).manual_seed(hash((self.seed, layer)) % 2**63)
        draw = torch.rand(like.shape, generator=generator, device=like.device)
        return draw >= dropout


@dataclass(frozen=True)
class Adapter:
    """A layer's adapter, as far as it decides with which others it is computed."""

    rank: int
    scale: float
    """Of BA."""
    dropout: float


@dataclass(frozen=True)
class Block:
    """Neighbouring parts, whose tokens go through their adapters at once."""

    all_parts: Sequence[Part]
    parts: slice
    """Which of all parts."""
    tokens: slice
    scale: float | Tensor
    """Of x A': for several parts [tokens, ranks], 0 where the rank is not of the token's own."""
    dropout: float
    ranks: Sequence[int]
    """Of each part."""

    def kept(self, layer: int, like: Tensor) -> Tensor | None:
        """Which elements of a layer's input dropout keeps; None for all. like: [tokens, in]."""
        if not self.dropout:
            return None
        own = self.all_parts[self.parts]
        if len(own) == 1:
            return own[0].kept(layer, self.dropout, like)
        rows = like.split([_length(part) for part in own])
        found = [p.kept(layer, self.dropout, r) for p, r in zip(own, rows, strict=True)]
        return torch.cat([kept for kept in found if kept is not None])


class Route:
    """The parts of the pass that is going on; all tokens through one adapter unless told."""

    def __init__(self, parts: Sequence[Part] = (Part(ALONE, slice(None)),)) -> None:
        self._usual = tuple(parts)
        self.parts = self._usual
        self._blocks: dict[tuple[Adapter, ...], list[Block]] = {}

    def blocks(self, adapters: tuple[Adapter, ...], x: Tensor) -> list[Block]:
        """How a layer with these adapters, one a part, computes the parts: most layers alike.

        x: the layer's input, of whose type and device the scales are.
        """
        if adapters not in self._blocks:
            self._blocks[adapters] = list(_blocks(self.parts, adapters, x))
        return self._blocks[adapters]

    @contextmanager
    def over(self, parts: Sequence[Part]) -> Iterator[None]:
        """Within: forward and backward passes go through these adapters."""
        self._be(parts)
        try:
            yield
        finally:
            self._be(self._usual)

    def _be(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self._blocks = {}


def _blocks(parts: Sequence[Part], adapters: Sequence[Adapter], x: Tensor) -> Iterator[Block]:
    if len(parts) == 1:
        (part,), (own,) = parts, adapters
        yield Block(parts, slice(0, 1), part.tokens, own.scale, own.dropout, [own.rank])
        return
    lengths = [_length(part) for part in parts]
    for group in neighbours(lengths, adapters):
        own = adapters[group]
        tokens = slice(parts[group.start].tokens.start, parts[group.stop - 1].tokens.stop)
        scale = own[0].scale if len(own) == 1 else _scales(lengths[group], own, x)
        ranks = [adapter.rank for adapter in own]
        yield Block(parts, group, tokens, scale, own[0].dropout, ranks)


def _scales(lengths: Sequence[int], adapters: Sequence[Adapter], x: Tensor) -> Tensor:
    """Exact: in fp32 where x's type has not all of them."""
    own = zip(lengths, adapters, strict=True)
    squares = [torch.full((length, one.rank), one.scale, device=x.device) for length, one in own]
    exact = torch.block_diag(*squares)
    short = exact.to(x.dtype)
    return short if torch.equal(short.float(), exact) else exact


def _length(part: Part) -> int:
    return part.tokens.stop - part.tokens.start
