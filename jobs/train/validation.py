"""Held-out rows during training: the loss on them, the best step so far, and when to stop."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from raylora.config.training_spec import TrainingSpec
from raylora.jobs.data.batches import MicroBatch, join
from raylora.jobs.data.examples import Example, Examples
from raylora.jobs.train import collective
from raylora.jobs.train.backend import TrainingBackend
from raylora.jobs.train.passes import padded_with_dummies


@dataclass(frozen=True)
class Validation:
    """One look at the held-out rows."""

    step: int
    """Optimizer steps done."""
    loss: float
    """Mean per supervised token."""
    scores: dict[str, float] = field(default_factory=dict[str, float])
    """Of generated answers, by metric; empty where the spec asks for none."""


class Validator(Protocol):
    """Looks at held-out rows when it is time. Every worker calls it."""

    def is_due(self, done: int, total: int) -> bool:
        """Whether to look after `done` steps."""
        ...

    def look(self, backend: TrainingBackend, done: int, micro_batch_size: int) -> Validation:
        """Loss and scores now; forward passes take so many rows at most."""
        ...


class NoValidation:
    """The spec validates never."""

    def is_due(self, done: int, total: int) -> bool:
        return False

    def look(self, backend: TrainingBackend, done: int, micro_batch_size: int) -> Validation:
        raise AssertionError("this is never due")


Answers = Callable[[], Mapping[str, float]]
"""Lets the model answer held-out rows, spread over the workers; mean scores by metric."""


class HeldOut:
    """Validates every validation_steps steps and after the last one."""

    def __init__(
        self,
        examples: Examples,
        training: TrainingSpec,
        rank: int,
        world_size: int,
        answers: Answers = dict,
    ) -> None:
        """Takes the first validation_rows of `examples`, each worker its share of them."""
        rows = range(min(len(examples), training.validation_rows))
        self._every = training.validation_steps or 1
        self._mine = [examples[row] for row in rows[rank::world_size]]
        self._weight = float(examples.supervised[: len(rows)].sum())
        self._answers = answers

    def is_due(self, done: int, total: int) -> bool:
        return done % self._every == 0 or done == total

    def look(self, backend: TrainingBackend, done: int, micro_batch_size: int) -> Validation:
        batches = _micro_batches(self._mine, micro_batch_size)
        mine = sum(
            float(backend.evaluate({k: v.to(backend.device) for k, v in inputs.items()})) * real
            for inputs, real in padded_with_dummies(batches, backend.in_step)
        )
        loss = collective.total([mine])[0] / self._weight
        return Validation(done, loss, dict(self._answers()))


def best_of(validations: Sequence[Validation]) -> Validation | None:
    """The lowest loss, the earliest of equals; None where none is a number."""
    numbers = [validation for validation in validations if math.isfinite(validation.loss)]
    return min(numbers, key=lambda validation: validation.loss, default=None)


def is_out_of_patience(validations: Sequence[Validation], training: TrainingSpec) -> bool:
    """Whether the last early_stopping_patience validations brought no lower loss."""
    patience, best = training.early_stopping_patience, best_of(validations)
    if patience is None or best is None:
        return False
    return sum(validation.step > best.step for validation in validations) >= patience


def _micro_batches(rows: Sequence[Example], size: int) -> list[MicroBatch]:
    return [join(rows[i : i + size]) for i in range(0, len(rows), size)]
