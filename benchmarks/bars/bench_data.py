"""Data sets that lie beside the project: RAYLORA_BENCH_DATA, or ../shared/data."""

import csv
import os
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars.fresh import REPOSITORY


@dataclass(frozen=True)
class Question:
    """A customer's message and its intent."""

    text: str
    intent: str


@dataclass(frozen=True)
class Banking77:
    """PolyAI's BANKING77 (CC BY 4.0)."""

    train: Sequence[Question]
    test: Sequence[Question]

    def few(self, per_intent: int, seed: int = 0) -> list[Question]:
        """So many training questions of each intent, the same for the same seed."""
        by_intent: defaultdict[str, list[Question]] = defaultdict(list)
        for question in self.train:
            by_intent[question.intent].append(question)
        draw = random.Random(seed)
        return [
            question
            for intent in sorted(by_intent)
            for question in draw.sample(by_intent[intent], per_intent)
        ]


def banking77() -> Banking77 | None:
    """The data set; None where it is missing."""
    root = Path(os.environ.get("RAYLORA_BENCH_DATA") or REPOSITORY.parent / "shared/data")
    folder = root / "banking77"
    if not folder.is_dir():
        return None
    return Banking77(_read(folder / "train.csv"), _read(folder / "test.csv"))


def _read(path: Path) -> list[Question]:
    with path.open(encoding="utf-8", newline="") as file:
        return [Question(row["text"], row["category"]) for row in csv.DictReader(file)]
