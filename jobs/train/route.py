"""Which adapter the rows of a pass go through: one trains alone, or several side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

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


class Route:
    """The parts of the pass that is going on; all tokens through one adapter unless told."""

    def __init__(self, parts: Sequence[Part] = (Part(ALONE, slice(None)),)) -> None:
        self._usual = tuple(parts)
        self.parts = self._usual

    @contextmanager
    def over(self, parts: Sequence[Part]) -> Iterator[None]:
        """Within: forward and backward passes go through these adapters."""
        self.parts = tuple(parts)
        try:
            yield
        finally:
            self.parts = self._usual
