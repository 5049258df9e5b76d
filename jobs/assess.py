"""Judges a finished adapter on one node, once the workers are gone: whole, the same, how good.

Runs as a Ray task of its own process, so that what is judged is what is on disk.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
import torch
from torch import Tensor

from raylora.cluster.events import EvaluationEvent, Event, StageEvent
from raylora.config.places import cache
from raylora.engine.generator import Engine
from raylora.engine.runner import Adapters
from raylora.errors import RayloraError
from raylora.jobs import probe
from raylora.jobs.answering import NoAdapters
from raylora.jobs.assignment import (
    ADAPTER,
    BASE,
    EVALUATION,
    HELD_OUT,
    PROBE,
    Assessment,
    Assignment,
)
from raylora.jobs.data.chat_template import use_template
from raylora.jobs.data.loading import held_out
from raylora.jobs.data.partition import held_out_label
from raylora.jobs.data.rows import Rows
from raylora.jobs.evaluation import Evaluation, Scores, evaluate, write_predictions
from raylora.lora.bank.bank import Bank
from raylora.lora.base import load_for_generation, load_tokenizer
from raylora.lora.devices import pick
from raylora.lora.integrity import verify
from raylora.lora.merging import merge
from raylora.lora.sources import LocalModel, fetch
from raylora.tracking.adapters import row_scores

PREDICTIONS = "predictions.jsonl"
"""Every held-out answer of both subjects."""


def assess(assignment: Assignment) -> Iterator[Event | Assessment | RayloraError]:
    """Check the run's adapter and evaluate it beside its base.

    Yields events as they happen, for the driver to say in their order, and last the assessment or
    what is wrong with the adapter.
    """
    try:
        yield from _assess(assignment)
    except RayloraError as error:
        yield error


def _assess(assignment: Assignment) -> Iterator[Event | Assessment]:
    spec, directory = assignment.spec, assignment.places.adapter
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    torch.set_num_threads(max(1, int(cpus)))
    yield StageEvent("verify")
    local = fetch(spec.model, cache())
    base: Any = load_for_generation(local, spec.model, pick())
    facts = verify(directory, base_config=base.config, base_revision=local.revision, alone=True)
    trained = probe.read(assignment.places.metadata / PROBE)
    before = _logits(base, trained.input_ids)
    adapted = _Merged(base, directory) if facts.alone_because else _Banked(base, directory)
    difference = probe.check(trained, before, adapted.logits(trained.input_ids))
    scores: Mapping[str, Scores] = {}
    rows = held_out(spec.data, Path.cwd())
    if rows is not None:
        yield StageEvent("evaluate", held_out_label(spec.data))
        evaluation = _evaluate(assignment, local, adapted, rows)
        write_predictions(
            assignment.places.artifacts / EVALUATION / PREDICTIONS, evaluation.predictions
        )
        row_scores.write(assignment.places.artifacts / row_scores.FILE, _by_row(evaluation))
        scores = evaluation.scores
    for subject, score in scores.items():
        yield EvaluationEvent(subject, score.rows, score.metrics)
    yield Assessment(
        base_revision=local.revision,
        data_sha256=facts.lineage["data"]["sha256"],
        adapter_sha256=facts.sha256,
        r=facts.r,
        logit_difference=difference,
        scores={subject: score.metrics for subject, score in scores.items()},
    )


class _Banked:
    """The adapter on the base, beside the base itself."""

    def __init__(self, base: Any, directory: Path) -> None:
        self.model = base
        self.adapters = Bank(base)
        self.adapters.add(ADAPTER, directory)
        self.subjects: dict[str, str | None] = {BASE: None, ADAPTER: ADAPTER}

    def logits(self, input_ids: Tensor) -> Tensor:
        with self.adapters.rows([ADAPTER] * len(input_ids)):
            return _logits(self.model, input_ids)


class _Merged:
    """An adapter that cannot share a batch, melted into the base, which is gone by that."""

    def __init__(self, base: Any, directory: Path) -> None:
        self.model = merge(base, directory)[0]
        self.adapters = NoAdapters()
        self.subjects: dict[str, str | None] = {ADAPTER: None}

    def logits(self, input_ids: Tensor) -> Tensor:
        return _logits(self.model, input_ids)


def _evaluate(
    assignment: Assignment, local: LocalModel, adapted: _Banked | _Merged, rows: Rows
) -> Evaluation:
    """Let the adapter and its base answer, the base anew where merging has changed it."""
    spec = assignment.spec
    tokenizer = use_template(load_tokenizer(local), spec.data, Path.cwd())

    def ask(model: Any, adapters: Adapters, subjects: Mapping[str, str | None]) -> Evaluation:
        engine = Engine(
            model,
            tokenizer,
            adapters,
            max_batch_size=spec.evaluation.batch_size,
            max_length=spec.model.max_length,
        )
        return evaluate(
            engine,
            rows,
            subjects,
            spec.evaluation,
            tokenizer=tokenizer,
            system_prompt=spec.data.system_prompt,
        )

    found = ask(adapted.model, adapted.adapters, adapted.subjects)
    if BASE in adapted.subjects:
        return found
    fresh = ask(load_for_generation(local, spec.model, pick()), NoAdapters(), {BASE: None})
    return Evaluation(fresh.scores | found.scores, fresh.predictions + found.predictions)


def _by_row(evaluation: Evaluation) -> row_scores.RowScores:
    """Of the adapter, by the names that the run gives its metrics."""
    return row_scores.collect(
        (
            row_scores.row_key(prediction.prompt, prediction.reference),
            {HELD_OUT[ADAPTER] + metric: score for metric, score in prediction.scores.items()},
        )
        for prediction in evaluation.predictions
        if prediction.subject == ADAPTER
    )


def _logits(model: Any, input_ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(input_ids=input_ids.to(model.device)).logits
