"""Answers to held-out rows while training goes on: the model as it is, spread over the workers."""

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from raylora.config.train_spec import TrainSpec
from raylora.engine.generator import Engine
from raylora.jobs.data.rows import Rows
from raylora.jobs.evaluation import evaluate
from raylora.jobs.train import collective
from raylora.jobs.train.passes import unpacked

SUBJECT = "model"


class NoAdapters:
    """In place of a bank where the model is to answer as it is."""

    in_force = None

    def rows(self, keys: Sequence[str | None]) -> AbstractContextManager[None]:
        """Change nothing."""
        return nullcontext()

    def stamp(self, key: str) -> Hashable:
        """There is none to tell from others."""
        raise KeyError(key)


class HeldOutAnswers:
    """Lets a model in training answer the first validation_answers held-out rows."""

    def __init__(
        self,
        base: PreTrainedModel,
        implementation: str,
        tokenizer: Any,
        rows: Rows,
        spec: TrainSpec,
        rank: int,
        world_size: int,
    ) -> None:
        """`base` carries the adapter; `implementation` is how it attends to unpacked rows."""
        self._base = base
        self._implementation = implementation
        self._tokenizer = tokenizer
        chosen = rows.items[: spec.training.validation_answers]
        self._asked = len(chosen)
        self._mine = replace(rows, items=chosen[rank::world_size])
        self._spec = spec

    def __call__(self) -> dict[str, float]:
        """Mean score by metric. Every worker calls it."""
        spec = self._spec
        sums = dict.fromkeys(spec.evaluation.metrics, 0.0)
        if self._mine.items:
            with unpacked(self._base, self._implementation):
                engine = Engine(
                    self._base,
                    self._tokenizer,
                    NoAdapters(),
                    max_batch_size=spec.evaluation.batch_size,
                    max_length=spec.model.max_length,
                )
                found = evaluate(
                    engine,
                    self._mine,
                    {SUBJECT: None},
                    spec.evaluation.model_copy(update={"max_rows": None}),
                    tokenizer=self._tokenizer,
                    system_prompt=spec.data.system_prompt,
                )
            scores = found.scores[SUBJECT]
            sums = {name: mean * scores.rows for name, mean in scores.metrics.items()}
        totals = collective.total(list(sums.values()))
        return {name: total / self._asked for name, total in zip(sums, totals, strict=True)}
