"""Passes through the model that train nothing: looks at held-out rows, and dummies.

Where all workers must go through equally many micro-batches (ZeRO 3), those with fewer make up
with dummies.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from raylora.jobs.data.batches import MicroBatch, join
from raylora.jobs.data.examples import IGNORED, Example
from raylora.jobs.train import collective
from raylora.jobs.train.fusion import unfused

_DUMMY = Example([0, 0], [IGNORED, 0])
"""Has a label, so that it goes through every layer."""


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
