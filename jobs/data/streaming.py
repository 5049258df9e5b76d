"""Batches out of data that is read and tokenised as training goes, for what is too large to keep.

Step i takes the rows i * global_batch_size to (i + 1) * global_batch_size - 1 of the stream,
whatever becomes of them: one that is skipped, dropped or split makes the batch smaller or larger.
So where a step begins is known without tokenising what comes before. Every worker reads all rows
and keeps its share, so that no worker waits for another.
"""

import hashlib
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from raylora.config.data_spec import DataSpec
from raylora.config.training_spec import TrainingSpec
from raylora.errors import InvalidData
from raylora.jobs.data.batches import MicroBatch, deal, join
from raylora.jobs.data.cache import settings
from raylora.jobs.data.chat_template import use_template
from raylora.jobs.data.encode import EncodedRow, Encoder
from raylora.jobs.data.examples import Example
from raylora.jobs.data.faults import Faults
from raylora.jobs.data.report import Counter, DataReport
from raylora.jobs.data.row_stream import RowStream
from raylora.jobs.data.sources import identity


class StreamedBatches:
    """The micro-batches of one worker, step by step. Resuming is starting at a later step."""

    def __init__(
        self,
        data: DataSpec,
        training: TrainingSpec,
        tokenizer: Any,
        base_dir: Path,
        rank: int,
        world_size: int,
    ) -> None:
        """The tokenizer is given data.chat_template, where that is set. Raises InvalidData."""
        assert training.max_steps is not None, "TrainSpec sees to it where data is streamed"
        self.total_steps = training.max_steps
        self._label = data.train_label
        self._size = training.global_batch_size
        self._rank = rank
        self._world_size = world_size
        self._encoder = Encoder(use_template(tokenizer, data, base_dir), data)
        self._rows = RowStream(data, base_dir, training.seed)
        self._faults = Faults(data.bad_rows)
        self._counter = Counter(self._faults)
        # The weight and the micro-batches of a step are asked for one after the other.
        self._examples = lru_cache(maxsize=2)(self._encoded)
        places = [identity(source, base_dir) for source in data.sources]
        decisive = (places, settings(data, tokenizer), training.seed, self._size)
        self.digest = hashlib.sha256(repr(decisive).encode()).hexdigest()

    def step(self, step: int, micro_batch_size: int) -> list[MicroBatch]:
        """This worker's part of a step: at most micro_batch_size examples in a micro-batch.

        Raises InvalidData for a row that cannot be used, where that is an error.
        """
        examples = self._examples(step)
        units = list(np.arange(len(examples))[:, None])
        share = deal(units, self._sizes(examples, units), self._world_size)[self._rank]
        sizes = self._sizes(examples, share)
        parts = deal(share, sizes, math.ceil(len(share) / micro_batch_size))
        return [join([examples[int(row)] for unit in part for row in unit]) for part in parts]

    def supervised_weight(self, step: int) -> float:
        """Weight of the supervised tokens of the whole step, over all workers."""
        return sum(example.supervised_weight for example in self._examples(step))

    @property
    def sample(self) -> Example:
        """An example of the first step."""
        return self._examples(0)[0]

    def report(self) -> DataReport:
        """What became of the rows that this worker has read so far."""
        return self._counter.report()

    def _encoded(self, step: int) -> list[Example]:
        examples: list[Example] = []
        for row in self._encoder.encode(self._rows.take(step * self._size, self._size)):
            if isinstance(row, EncodedRow):
                self._counter.add(row)
                examples.extend(row.examples)
            else:
                self._faults.add(row)
        self._faults.settle()
        if not examples:
            raise self._nothing(step)
        return examples

    @staticmethod
    def _sizes(examples: list[Example], units: list[Any]) -> list[int]:
        return [len(examples[int(unit[0])]) for unit in units]

    def _nothing(self, step: int) -> InvalidData:
        counts = self.report()
        return InvalidData(
            f"none of the {self._size} rows of step {step} can be used: of the {counts.rows} read "
            f"so far {counts.skipped} are bad and {counts.dropped} too long",
            file=self._label,
            hint="mend the rows, raise data.max_length, or raise training.global_batch_size",
        )
