"""Which rows a worker trains on at which step: a pure function of the seed and the step.

Rows form one endless stream, shuffled anew for each epoch. Step i takes the next
global_batch_size rows of it, so that a batch may span two epochs and no row is ever left out.
Every worker computes the plan of all of them and keeps its own part.
"""

import hashlib
import json
import math
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

from raylora.config.training_spec import TrainingSpec
from raylora.jobs.data.encode import IGNORED, Example

MicroBatch: TypeAlias = dict[str, Tensor]
"""input_ids, attention_mask and labels, each int64 [rows, length], padded on the right."""


class Batches:
    """The micro-batches of one worker, step by step. Resuming is starting at a later step."""

    def __init__(
        self, examples: Sequence[Example], training: TrainingSpec, rank: int, world_size: int
    ) -> None:
        """world_size divides training.global_batch_size (TrainSpec sees to it)."""
        self._examples = examples
        self._training = training
        self._rank = rank
        self._world_size = world_size
        # A batch spans two epochs at most where there are as many rows as a batch has.
        self._order = lru_cache(maxsize=2)(self._shuffled)
        self.digest = _digest(examples, training)

    @property
    def total_steps(self) -> int:
        """Steps in all: max_steps, or enough to pass over the rows `epochs` times."""
        if self._training.max_steps is not None:
            return self._training.max_steps
        rows = self._training.epochs * len(self._examples)
        return math.ceil(rows / self._training.global_batch_size)

    def step(self, step: int) -> list[MicroBatch]:
        """This worker's part of a step, global_batch_size / world_size rows, longest first."""
        share = deal(self._batch(step), self._world_size)[self._rank]
        size = self._training.micro_batch_size
        return [collate(share[i : i + size]) for i in range(0, len(share), size)]

    def supervised_tokens(self, step: int) -> int:
        """Supervised tokens of the whole step, over all workers.

        The sum of losses divided by this is the same mean however many workers there are.
        """
        return sum(example.supervised_tokens for example in self._batch(step))

    def _batch(self, step: int) -> list[Example]:
        size, rows = self._training.global_batch_size, len(self._examples)
        places = (divmod(i, rows) for i in range(step * size, (step + 1) * size))
        return [self._examples[self._order(epoch)[place]] for epoch, place in places]

    def _shuffled(self, epoch: int) -> list[int]:
        order = list(range(len(self._examples)))
        random.Random(f"{self._training.seed}/{epoch}").shuffle(order)
        return order


def deal(batch: Sequence[Example], workers: int) -> list[list[Example]]:
    """Split a batch into equal numbers of rows and nearly equal numbers of tokens.

    The longest rows go first, each to the worker with the fewest tokens that has room left, which
    also leaves each share sorted, so that rows of like length share a micro-batch.
    """
    shares: list[list[Example]] = [[] for _ in range(workers)]
    room = len(batch) // workers
    for example in sorted(batch, key=len, reverse=True):
        open_shares = (share for share in shares if len(share) < room)
        min(open_shares, key=_tokens).append(example)
    return shares


def collate(examples: Sequence[Example]) -> MicroBatch:
    """Pad to the longest row. Padding is token 0, masked and without a label."""
    shape = (len(examples), max(len(example) for example in examples))
    input_ids = torch.zeros(shape, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED, dtype=torch.int64)
    for row, example in enumerate(examples):
        input_ids[row, : len(example)] = torch.tensor(example.input_ids)
        attention_mask[row, : len(example)] = 1
        labels[row, : len(example)] = torch.tensor(example.labels)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def _tokens(share: Sequence[Example]) -> int:
    return sum(len(example) for example in share)


def _digest(examples: Sequence[Example], training: TrainingSpec) -> str:
    """sha256 of the examples and of what decides which step takes which of them."""
    digest = hashlib.sha256(f"{training.seed}/{training.global_batch_size}".encode())
    for example in examples:
        digest.update(json.dumps([example.input_ids, example.labels]).encode())
    return digest.hexdigest()
