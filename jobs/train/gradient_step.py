"""The gradients of one optimizer step: micro-batches, and smaller ones where memory runs out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from raylora.jobs.data.batches import MicroBatch
from raylora.jobs.train import backoff, collective
from raylora.jobs.train.backend import TrainingBackend
from raylora.jobs.train.neftune import Noise
from raylora.jobs.train.observer import Observer
from raylora.jobs.train.passes import padded_with_dummies


class StepSource(Protocol):
    """What a step trains on; Batches and StreamedBatches."""

    @property
    def total_steps(self) -> int:
        """Optimizer steps in all."""
        ...

    @property
    def digest(self) -> str:
        """Identifies the data and the order it comes in."""
        ...

    def step(self, step: int, micro_batch_size: int) -> list[MicroBatch]:
        """This worker's micro-batches, of so many rows at most."""
        ...

    def supervised_weight(self, step: int) -> float:
        """Sum over all workers of the weights of the labels."""
        ...


class GradientStep:
    """Adds up one worker's part of the gradients of the mean loss over a global batch."""

    def __init__(
        self,
        backend: TrainingBackend,
        batches: StepSource,
        micro_batch_size: int,
        noise: Noise,
        observer: Observer,
    ) -> None:
        self._backend = backend
        self._batches = batches
        self.micro_batch_size = micro_batch_size
        """Rows per forward pass now."""
        self._noise = noise
        self._observer = observer

    def compute(self, step: int, seed: int, count: Callable[[MicroBatch], None]) -> Tensor:
        """This worker's share of the mean loss. Every worker calls it.

        Where memory runs out on one worker, all do the step again with half the rows in a forward
        pass: the global batch is the same. Workers that wait for each other within a forward pass
        cannot, so there the error is raised and the next attempt begins with less.
        """
        while True:
            batches = self._batches.step(step, self.micro_batch_size)
            share = self._attempt(batches, step, seed)
            if not collective.anyone(share is None):
                assert share is not None
                for inputs in batches:
                    count(inputs)
                return share
            self._backend.discard()
            backoff.release()
            self.micro_batch_size = backoff.halved(self.micro_batch_size)
            self._observer.backed_off(self.micro_batch_size)

    def _attempt(self, batches: Sequence[MicroBatch], step: int, seed: int) -> Tensor | None:
        """None where memory ran out."""
        torch.manual_seed(seed)
        try:
            return self._backward(batches, 1.0 / self._batches.supervised_weight(step), seed)
        except Exception as error:
            if not self._backend.recovers or not backoff.is_out_of_memory(error):
                raise
            return None

    def _backward(self, batches: Sequence[MicroBatch], scale: float, seed: int) -> Tensor:
        device = self._backend.device
        share = torch.zeros((), device=device)
        padded = padded_with_dummies(batches, self._backend.in_step)
        for number, (inputs, real) in enumerate(padded):
            own = hash((seed, number))
            with self._noise.over(inputs["lengths"]):
                share += self._backend.backward(_on(device, inputs), scale * real, own)
        return share


def _on(device: torch.device, inputs: Mapping[str, Tensor]) -> MicroBatch:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}
