"""What the training loop tells its surroundings, and how the numbers are measured."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
import torch
from torch import Tensor
from torch import distributed as dist

from raylora.errors import JobFailed
from raylora.jobs.train.loss import supervised_tokens


@dataclass(frozen=True)
class StepReport:
    """One logging interval, over all workers. Every worker gets the same one but for memory."""

    step: int
    """Optimizer steps done."""
    total_steps: int
    loss: float
    """Mean over the interval's steps of the mean loss per supervised token."""
    learning_rate: float
    grad_norm: float
    """2-norm before clipping, of the last step."""
    tokens_per_second: float
    """All tokens but padding."""
    supervised_tokens_per_second: float
    memory_bytes: int
    """Resident memory of this worker, or the GPU's peak where there is one."""
    eta_seconds: float


class Observer(Protocol):
    """Is called on every worker at the same steps."""

    def resumed(self, step: int) -> None:
        """Training continues after `step` optimizer steps; 0 for a new run."""
        ...

    def stepped(self, report: StepReport) -> None:
        """A logging interval is over."""
        ...

    def saved(self, step: int, checkpoint: Path) -> None:
        """The state after `step` steps is on disk."""
        ...


class NullObserver:
    """Nobody watches."""

    def resumed(self, step: int) -> None:
        """Do nothing."""

    def stepped(self, report: StepReport) -> None:
        """Do nothing."""

    def saved(self, step: int, checkpoint: Path) -> None:
        """Do nothing."""


class Meter:
    """Collects a logging interval on one worker; `report` adds the workers up."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = time.perf_counter()
        self._steps_seen = 0
        self._reset()

    def count(self, inputs: Mapping[str, Tensor]) -> None:
        """Count the tokens of a micro-batch of this worker."""
        self._supervised += supervised_tokens(inputs["labels"])
        mask = inputs.get("attention_mask")
        self._tokens += inputs["input_ids"].numel() if mask is None else int(mask.sum())

    def step(self, loss: Tensor) -> None:
        """Count an optimizer step; `loss` is this worker's share of the global mean."""
        self._losses.append(loss)
        self._steps_seen += 1

    def report(
        self, step: int, total_steps: int, *, learning_rate: float, grad_norm: float
    ) -> StepReport:
        """Close the interval that ends with `step` steps done. Every worker must call it.

        Raises JobFailed, on all workers, naming the first step whose loss is not a number.
        """
        counts = torch.tensor([self._tokens, self._supervised], device=self._device)
        sums = torch.cat([counts.double(), torch.stack(self._losses).double()])
        dist.all_reduce(sums)
        tokens, supervised, *losses = sums.tolist()
        _stop_where_not_finite(losses, step)
        now = time.perf_counter()
        seconds = now - self._since
        pace = (now - self._started) / self._steps_seen
        self._reset()
        return StepReport(
            step=step,
            total_steps=total_steps,
            loss=sum(losses) / len(losses),
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            tokens_per_second=tokens / seconds,
            supervised_tokens_per_second=supervised / seconds,
            memory_bytes=_memory(self._device),
            eta_seconds=(total_steps - step) * pace,
        )

    def _reset(self) -> None:
        self._since = time.perf_counter()
        self._losses: list[Tensor] = []
        self._tokens = 0
        self._supervised = 0


def _stop_where_not_finite(losses: list[float], last_step: int) -> None:
    for step, loss in enumerate(losses, last_step - len(losses) + 1):
        if not math.isfinite(loss):
            raise JobFailed(
                f"the loss is {loss} at step {step}: training diverged",
                hint="lower training.learning_rate, raise training.warmup_ratio or look at the "
                "rows of that step; checkpoints before it are kept",
            )


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
