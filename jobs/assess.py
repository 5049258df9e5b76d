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
from raylora.errors import RayloraError
from raylora.jobs import probe
from raylora.jobs.assignment import ADAPTER, BASE, EVALUATION, PROBE, Assessment, Assignment
from raylora.jobs.data.rows import read_rows
from raylora.jobs.evaluation import Scores, evaluate, write_predictions
from raylora.lora.bank import Bank
from raylora.lora.base import load_for_generation, load_tokenizer
from raylora.lora.devices import pick
from raylora.lora.sources import fetch

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
    spec, places = assignment.spec, assignment.places
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    torch.set_num_threads(max(1, int(cpus)))
    yield StageEvent("verify")
    local = fetch(spec.model, cache())
    base: Any = load_for_generation(local, spec.model, pick())
    bank = Bank(base, base_revision=local.revision)
    facts = bank.add(ADAPTER, places.adapter)
    difference = probe.check(
        places.metadata / PROBE, _forward(base, bank, None), _forward(base, bank, ADAPTER)
    )
    scores: Mapping[str, Scores] = {}
    if spec.data.validation is not None:
        yield StageEvent("evaluate", spec.data.validation)
        scores = _evaluate(assignment, base, load_tokenizer(local), bank, spec.data.validation)
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


def _evaluate(
    assignment: Assignment, base: Any, tokenizer: Any, bank: Bank, held_out: str
) -> Mapping[str, Scores]:
    spec = assignment.spec
    engine = Engine(
        base,
        tokenizer,
        bank,
        max_batch_size=spec.evaluation.batch_size,
        max_length=spec.model.max_length,
    )
    evaluation = evaluate(
        engine,
        read_rows(held_out, Path.cwd()),
        {BASE: None, ADAPTER: ADAPTER},
        spec.evaluation,
        tokenizer=tokenizer,
        system_prompt=spec.data.system_prompt,
    )
    folder = assignment.places.artifacts / EVALUATION
    write_predictions(folder / PREDICTIONS, evaluation.predictions)
    return evaluation.scores


def _forward(base: Any, bank: Bank, key: str | None) -> probe.Forward:
    def logits(input_ids: Tensor) -> Tensor:
        with bank.rows([key] * len(input_ids)):
            return base(input_ids=input_ids.to(base.device)).logits

    return logits
