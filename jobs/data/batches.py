"""Which rows a worker trains on at which step: a pure function of the seed and the step.

Rows form one endless stream of units (a row, or a pack of rows), ordered anew for each epoch. Step
i takes the next global_batch_size units of it, so that a batch may span epochs and no row is ever
left out. Every worker computes the plan of all of them and keeps its own part.
"""

import hashlib
import math
from bisect import bisect
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from raylora.config.data_spec import DataSpec, Order, Packing
from raylora.config.training_spec import TrainingSpec
from raylora.jobs.data.examples import Example, Examples
from raylora.jobs.data.packing import Rows, Units, best_fit, group_by_length, one_by_one, shuffle

MicroBatch: TypeAlias = dict[str, Tensor]
"""Documents end to end, without padding. input_ids, labels and position_ids (restarting with each
document) are int64 [1, length]; lengths is int32 [documents]; weights, where rows have any, are
float32 [1, length]."""

Item = TypeVar("Item")


class Batches:
    """The micro-batches of one worker, step by step. Resuming is starting at a later step."""

    def __init__(
        self,
        examples: Examples,
        data: DataSpec,
        training: TrainingSpec,
        rank: int,
        world_size: int,
    ) -> None:
        """world_size is at most training.global_batch_size (TrainSpec sees to it)."""
        self._examples = examples
        self._data = data
        self._training = training
        self._rank = rank
        self._world_size = world_size
        self._ends: list[int] = []
        # A batch spans two epochs at most where there are as many units as a batch has.
        self._epoch = lru_cache(maxsize=2)(self._ordered)
        self.digest = self._digest()

    @property
    def total_steps(self) -> int:
        """Steps in all: max_steps, or enough to pass over the rows `epochs` times."""
        if self._training.max_steps is not None:
            return self._training.max_steps
        part, whole = math.modf(self._training.epochs)
        units = self._end(int(whole)) + part * len(self._epoch(int(whole)))
        return math.ceil(units / self._training.global_batch_size)

    def step(self, step: int, micro_batch_size: int) -> list[MicroBatch]:
        """This worker's part of a step: at most micro_batch_size units in a micro-batch.

        Workers have numbers of units that differ by at most one; micro-batches have nearly equal
        numbers of tokens.
        """
        units = self._batch(step)
        share = deal(units, self._sizes(units), self._world_size)[self._rank]
        parts = deal(share, self._sizes(share), math.ceil(len(share) / micro_batch_size))
        return [
            join([self._examples[int(row)] for unit in part for row in unit]) for part in parts
        ]

    def supervised_weight(self, step: int) -> float:
        """Weight of the supervised tokens of the whole step, over all workers.

        The sum of losses divided by this is the same mean however many workers there are.
        """
        return float(self._examples.supervised[np.concatenate(self._batch(step))].sum())

    def _batch(self, step: int) -> list[Rows]:
        size = self._training.global_batch_size
        return [self._unit(place) for place in range(step * size, (step + 1) * size)]

    def _unit(self, place: int) -> Rows:
        """The unit at a place of the endless stream."""
        while not self._ends or self._ends[-1] <= place:
            self._end(len(self._ends) + 1)
        epoch = bisect(self._ends, place)
        return self._epoch(epoch)[place - self._end(epoch)]

    def _end(self, epochs: int) -> int:
        """Units in the first `epochs` epochs."""
        while len(self._ends) < epochs:
            self._ends.append(self._end(len(self._ends)) + len(self._epoch(len(self._ends))))
        return self._ends[epochs - 1] if epochs else 0

    def _ordered(self, epoch: int) -> Units:
        data, seed = self._data, self._training.seed
        units = one_by_one(self._examples.epoch_order(epoch, seed))
        generator = np.random.default_rng((seed, epoch, len(units)))
        if data.packing is Packing.BEST_FIT:
            capacity = data.pack_length or data.max_length
            units = shuffle(best_fit(units.rows, self._examples.lengths, capacity), generator)
        if data.order is Order.LENGTH_GROUPED:
            batch = self._training.global_batch_size
            units = group_by_length(units, self._examples.lengths, batch, generator)
        return units

    def _sizes(self, units: Sequence[Rows]) -> list[int]:
        return [int(self._examples.lengths[unit].sum()) for unit in units]

    def _digest(self) -> str:
        """sha256 of the examples and of what decides which step takes which of them."""
        data, training = self._data, self._training
        decisive = (
            self._examples.digest,
            training.seed,
            training.global_batch_size,
            data.packing.value,
            data.pack_length or data.max_length,
            data.order.value,
        )
        return hashlib.sha256(repr(decisive).encode()).hexdigest()


def deal(units: Sequence[Item], sizes: Sequence[int], hands: int) -> list[list[Item]]:
    """Split units into nearly equal numbers of units and nearly equal numbers of tokens.

    The longest go first, each to the hand with the fewest tokens that has room left.
    """
    most, with_most = divmod(len(units), max(1, hands))
    room = [most + (hand < with_most) for hand in range(hands)]
    dealt: list[list[Item]] = [[] for _ in range(hands)]
    tokens = [0] * hands
    for i in sorted(range(len(units)), key=lambda i: -sizes[i]):
        hand = min((h for h in range(hands) if len(dealt[h]) < room[h]), key=tokens.__getitem__)
        dealt[hand].append(units[i])
        tokens[hand] += sizes[i]
    return dealt


def join(examples: Sequence[Example]) -> MicroBatch:
    """One micro-batch of the examples end to end."""
    batch = {
        "input_ids": _row([e.input_ids for e in examples], torch.int64),
        "labels": _row([e.labels for e in examples], torch.int64),
        "position_ids": _row([range(len(e)) for e in examples], torch.int64),
        "lengths": torch.tensor([len(e) for e in examples], dtype=torch.int32),
    }
    if any(e.weights is not None for e in examples):
        weights = [[1.0] * len(e) if e.weights is None else e.weights for e in examples]
        batch["weights"] = _row(weights, torch.float32)
    return batch


def _row(parts: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    return torch.tensor([value for part in parts for value in part], dtype=dtype)[None]
