"""How likely a model holds given answers: the losses of their tokens, through the one bank."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from raylora.engine.runner import Adapters
from raylora.engine.scoring import score
from raylora.jobs.data.examples import IGNORED, Example

BATCH_TOKENS = 4096
"""Of a forward pass, padding included."""
BATCH_LOGITS = 2048
"""Positions whose logits are kept: 0.4 GB in fp32 with SmolLM2's vocabulary."""


@dataclass(frozen=True)
class Given:
    """A sequence whose labelled tokens are to be judged by one subject."""

    example: Example
    key: str | None
    """Of the subject's adapter in the bank; None for the base."""

    @property
    def kept(self) -> int:
        """Positions at the end, from the one that predicts the first label on."""
        first = next(i for i, label in enumerate(self.example.labels) if label != IGNORED)
        return len(self.example) - first + 1


@dataclass(frozen=True)
class Loss:
    """Negative log-likelihood of the labelled tokens."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """Of a token."""
        return self.total / self.tokens


def losses(model: Any, bank: Adapters, given: Sequence[Given]) -> list[Loss]:
    """Judge sequences, those of like length together; losses in the given order."""
    found: dict[int, Loss] = {}
    for batch in _batches(given):
        rows = [(given[i].example.input_ids, given[i].key) for i in batch]
        last = max(given[i].kept for i in batch)
        for i, logits in zip(batch, score(model, bank, rows, last=last), strict=True):
            found[i] = _loss(logits, given[i].example.labels)
    return [found[i] for i in range(len(given))]


def _loss(logits: Any, labels: Sequence[int]) -> Loss:
    """Entry i of the logits predicts the label behind it; the last one predicts nothing."""
    wanted = torch.tensor(labels[len(labels) - len(logits) + 1 :], device=logits.device)
    total = functional.cross_entropy(
        logits[:-1].float(), wanted, ignore_index=IGNORED, reduction="sum"
    )
    return Loss(float(total), int((wanted != IGNORED).sum()))


def _batches(given: Sequence[Given]) -> Iterator[list[int]]:
    """Indices, the longest first: what does not fit into memory shows at once."""
    batch: list[int] = []
    width = kept = 0
    for i in sorted(range(len(given)), key=lambda i: -len(given[i].example)):
        width = width or len(given[i].example)
        kept = max(kept, given[i].kept)
        size = len(batch) + 1
        if batch and (size * width > BATCH_TOKENS or size * kept > BATCH_LOGITS):
            yield batch
            batch, width, kept = [], len(given[i].example), given[i].kept
        batch.append(i)
    if batch:
        yield batch
