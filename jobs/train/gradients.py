"""Gradients of one optimizer step, added up on this worker in fp32.

They are taken out of autograd, not left on the parameters: nothing else sees them before the step,
so that micro-batches may be as many as each worker has, and a step that ran out of memory halfway
is forgotten and done again. Adapters are small: 20 MB for SmolLM2 at rank 16.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

FIRST_SCALE = 2.0**16
GROWTH_STEPS = 2000
"""Steps without overflow after which the scale doubles."""


class LocalGradients:
    """The sum so far, of parameters in their order."""

    def __init__(self, parameters: Sequence[nn.Parameter], device: torch.device) -> None:
        self.parameters = list(parameters)
        sizes = [p.numel() for p in parameters]
        self._flat = torch.zeros(sum(sizes), device=device)
        self._views = [
            part.view_as(p)
            for part, p in zip(self._flat.split(sizes), self.parameters, strict=True)
        ]
        self._forgotten = False
        """What is there counts for nothing: the next gradients replace it."""

    @property
    def flat(self) -> Tensor:
        """All of it; the same memory at all times."""
        if self._forgotten:
            self._flat.zero_()
            self._forgotten = False
        return self._flat

    @property
    def views(self) -> Sequence[Tensor]:
        """The part of each parameter in its shape."""
        _ = self.flat
        return self._views

    def add(self, found: Sequence[Tensor | None], factor: float) -> None:
        """Add `factor` times the gradients of the parameters, None for those without one."""
        if self._forgotten and all(gradient is not None for gradient in found):
            self._replace(found, factor)
            return
        for view, gradient in zip(self.views, found, strict=True):
            if gradient is not None:
                view.add_(gradient, alpha=factor)

    def clear(self) -> None:
        """Begin anew."""
        self._forgotten = True

    def _replace(self, found: Sequence[Any], factor: float) -> None:
        """A step of one micro-batch is spared two of three rounds through memory."""
        self._forgotten = False
        for view, gradient in zip(self._views, found, strict=True):
            view.copy_(gradient)
        if factor != 1.0:
            self._flat.mul_(factor)


class LossScale:
    """By how much a loss in fp16 is multiplied, so that none of its gradients vanishes.

    It halves where gradients overflow, and that step is left out; it doubles after a long time
    without one (Micikevicius et al., 2018). Other number formats have the range of fp32 and need
    none. It is part of a checkpoint.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """`dtype` is what the model computes in."""
        self.used = dtype is torch.float16
        self.value = FIRST_SCALE if self.used else 1.0
        self._good_steps = 0

    def overflowed(self) -> bool:
        """Take in gradients that are not finite; whether a smaller scale may help."""
        helps = self.used and self.value > 1.0
        if helps:
            self.value /= 2
            self._good_steps = 0
        return helps

    def held(self) -> None:
        """Take in a step whose gradients were finite."""
        if self.used:
            self._good_steps += 1
            self.value *= 2 if self._good_steps % GROWTH_STEPS == 0 else 1

    def state(self) -> list[float]:
        """What load takes."""
        return [self.value, float(self._good_steps)]

    def load(self, state: list[float]) -> None:
        """Go on from what state gave; a run that needs no scale stays without."""
        if self.used:
            self.value, self._good_steps = state[0], int(state[1])
