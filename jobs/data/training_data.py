"""What one worker trains on, by whichever way its spec wants it read."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raylora.config.data_spec import DataSpec, Ingest
from raylora.config.training_spec import TrainingSpec
from raylora.jobs.data.batches import Batches
from raylora.jobs.data.examples import Example, Examples
from raylora.jobs.data.loading import held_out, held_out_examples, load
from raylora.jobs.data.report import DataReport
from raylora.jobs.data.rows import Rows
from raylora.jobs.data.streaming import StreamedBatches


@dataclass(frozen=True)
class TrainingData:
    """Batches, and what the run keeps and says of the data behind them."""

    batches: Batches | StreamedBatches
    sample: Example
    """Some row of the training data."""
    digest: str
    """sha256 of the training data; streamed data, which nobody has read, goes by name and size."""
    report: Callable[[], DataReport]
    """What has become of the training rows so far."""
    held_out: Examples | None
    """None where nothing is held out."""
    data: DataSpec
    base_dir: Path

    @cached_property
    def conversations(self) -> Rows | None:
        """The held-out conversations, to be answered; read when asked for."""
        return held_out(self.data, self.base_dir)


def training_data(
    data: DataSpec,
    training: TrainingSpec,
    tokenizer: Any,
    base_dir: Path,
    rank: int,
    world_size: int,
) -> TrainingData:
    """Read and tokenise, or begin to. The tokenizer is given data.chat_template.

    Relative paths start from base_dir. Raises InvalidData.
    """
    if data.ingest is Ingest.STREAMING:
        streamed = StreamedBatches(data, training, tokenizer, base_dir, rank, world_size)
        return TrainingData(
            batches=streamed,
            sample=streamed.sample,
            digest=streamed.digest,
            report=streamed.report,
            held_out=held_out_examples(data, tokenizer, base_dir),
            data=data,
            base_dir=base_dir,
        )
    # ingest=ray_data has filled the cache before, where nodes share it.
    loaded = load(data, tokenizer, base_dir)
    return TrainingData(
        batches=Batches(loaded.train, data, training, rank, world_size),
        sample=loaded.train[0],
        digest=loaded.train.digest,
        report=lambda: loaded.report,
        held_out=loaded.validation_examples,
        data=data,
        base_dir=base_dir,
    )
