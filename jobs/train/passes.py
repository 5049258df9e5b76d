"""Passes through the model: forward and backward, looks at held-out rows, and dummies.

Where all workers must go through equally many micro-batches (under ZeRO 3, or where trials take
turns), those with fewer make up with dummies.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from raylora.jobs.data.batches import MicroBatch, join
from raylora.jobs.data.examples import IGNORED, Example
from raylora.jobs.train import collective
from raylora.jobs.train.fusion import unfused
from raylora.jobs.train.route import ALONE, Part, Route

_DUMMY = Example([0, 0], [IGNORED, 0])
"""Has a label, so that it goes through every layer."""


class Passes(Protocol):
    """Through the model, for one adapter."""

    @property
    def in_step(self) -> bool:
        """Whether all workers must ask for equally many."""
        ...

    def gradients(
        self,
        inputs: Mapping[str, Tensor],
        scale: float,
        parameters: Sequence[nn.Parameter],
        seed: int,
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """The loss of a micro-batch, and of each parameter the gradient of `scale` times it.

        The seed is that of dropout.
        """
        ...

    def evaluate(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The loss without dropout and gradients."""
        ...


class OwnPasses:
    """Passes of an adapter that has the model for itself."""

    in_step = False

    def __init__(self, module: nn.Module, route: Route) -> None:
        """The forward pass of `module` gives a loss; its adapter layers follow `route`."""
        self._module = module
        self._route = route

    def gradients(
        self,
        inputs: Mapping[str, Tensor],
        scale: float,
        parameters: Sequence[nn.Parameter],
        seed: int,
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """See Passes."""
        with self._route.over([Part(ALONE, slice(None), seed)]):
            loss: Tensor = self._module(**inputs)
            found: Any = torch.autograd.grad(loss * scale, parameters, allow_unused=True)
        return loss.detach(), found

    def evaluate(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See Passes."""
        with evaluating(self._module):
            return self._module(**inputs)


def padded_with_dummies(
    batches: Sequence[MicroBatch], in_step: bool
) -> list[tuple[MicroBatch, float]]:
    """The micro-batches with weight 1 and, for workers in step, dummies of weight 0 to make up."""
    missing = collective.most(len(batches)) - len(batches) if in_step else 0
    dummies = [(join([_DUMMY]), 0.0) for _ in range(missing)]
    return [*((batch, 1.0) for batch in batches), *dummies]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode without gradients, then back into the mode it was in."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


@contextmanager
def unpacked(base: PreTrainedModel, implementation: str) -> Iterator[None]:
    """A model as PEFT has it that attends as `implementation` says, over rows of one document."""
    config: Any = base.config
    packed: str = config._attn_implementation
    base.set_attn_implementation(implementation)
    try:
        with unfused(base), evaluating(base):
            yield
    finally:
        base.set_attn_implementation(packed)
