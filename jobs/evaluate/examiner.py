"""The base and the adapters of an evaluation in one process, ready to be asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.places import cache
from raylora.engine.generator import Engine
from raylora.engine.runner import Adapters
from raylora.jobs.answering import NoAdapters
from raylora.jobs.evaluate.asked_rows import Read
from raylora.jobs.evaluate.measure import Asked, Panel, measure
from raylora.jobs.evaluate.row_result import RowResult
from raylora.jobs.evaluate.subject import Subject
from raylora.lora.bank.bank import Bank
from raylora.lora.base import load_for_generation, load_tokenizer
from raylora.lora.devices import pick
from raylora.lora.integrity import verify
from raylora.lora.merging import merge
from raylora.lora.sources import fetch


class Examiner:
    """Loads the base once and asks all subjects through it.

    An adapter that cannot share a batch (DoRA) is merged into a base of its own.
    """

    def __init__(self, spec: EvaluateSpec, subjects: Sequence[Subject]) -> None:
        """Raises InvalidAdapter, and what fetching the base raises."""
        self._spec = spec
        self._local = fetch(spec.model, cache())
        self._tokenizer: Any = load_tokenizer(self._local)
        base: Any = self._load()
        bank = Bank(base, base_revision=self._local.revision)
        shared: dict[str, str | None] = {}
        alone: list[Panel] = []
        for subject in subjects:
            directory = subject.directory
            if directory is None:
                shared[subject.label] = None
            elif self._must_be_alone(base.config, subject):
                merged, _ = merge(self._load(), directory, manifest_required=subject.is_registered)
                alone.append(self._panel(merged, NoAdapters(), {subject.label: None}))
            else:
                bank.add(subject.label, directory, manifest_required=subject.is_registered)
                shared[subject.label] = subject.label
        self._asked = Asked(subjects, [self._panel(base, bank, shared), *alone], self._tokenizer)

    def measure(self, dataset: int, rows: Sequence[Read]) -> list[RowResult]:
        """Results of rows; dataset is the place of theirs in the spec."""
        asked = self._spec.datasets[dataset]
        return measure(self._asked, self._spec, asked, rows, Path.cwd())

    def _load(self) -> Any:
        return load_for_generation(self._local, self._spec.model, pick())

    def _must_be_alone(self, base_config: Any, subject: Subject) -> bool:
        assert subject.directory is not None
        facts = verify(
            subject.directory,
            base_config=base_config,
            base_revision=self._local.revision,
            manifest_required=subject.is_registered,
            alone=True,
        )
        return bool(facts.alone_because)

    def _panel(self, model: Any, bank: Adapters, keys: dict[str, str | None]) -> Panel:
        engine = Engine(
            model,
            self._tokenizer,
            bank,
            max_batch_size=self._spec.evaluation.batch_size,
            max_length=self._spec.model.max_length,
        )
        return Panel(model, bank, engine, keys)
