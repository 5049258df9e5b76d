"""What the training loop tells its surroundings, and how the numbers are measured."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
import torch
from torch import Tensor

from raylora.jobs.data.examples import IGNORED
from raylora.jobs.train import collective
from raylora.jobs.train.utilisation import Cost, Work
from raylora.jobs.train.validation import Validation


@dataclass(frozen=True)
class StepReport:
    """One logging interval, over all workers. Every worker gets the same one."""

    step: int
    """Optimizer steps done."""
    total_steps: int
    loss: float
    """Mean over the interval's steps of the mean loss per supervised token."""
    learning_rate: float
    grad_norm: float
    """2-norm before clipping, of the last step."""
    tokens_per_second: float
    """All tokens; there is no padding."""
    supervised_tokens_per_second: float
    mfu: float
    """Operations that the interval needed, over what its workers could have done at their peak."""
    memory_bytes: int
    """Of the worker that has most."""
    worker_memory_bytes: list[int]
    """By worker: resident memory, or the GPU's peak where there is one."""
    eta_seconds: float


class Observer(Protocol):
    """Is called on every worker at the same steps."""

    def resumed(self, step: int) -> None:
        """Training continues after `step` optimizer steps; 0 for a new run."""
        ...

    def stepped(self, report: StepReport) -> None:
        """A logging interval is over."""
        ...

    def validated(self, validation: Validation, best: bool) -> None:
        """Held-out rows were looked at; `best` where their loss is the lowest so far."""
        ...

    def warned(self, text: str) -> None:
        """Something that does not stop the run is worth a word."""
        ...

    def backed_off(self, micro_batch_size: int) -> None:
        """Memory ran out; from now on a forward pass takes so many rows."""
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

    def validated(self, validation: Validation, best: bool) -> None:
        """Do nothing."""

    def warned(self, text: str) -> None:
        """Do nothing."""

    def backed_off(self, micro_batch_size: int) -> None:
        """Do nothing."""

    def saved(self, step: int, checkpoint: Path) -> None:
        """Do nothing."""


class Observers:
    """Several that hear the same, one after the other."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def resumed(self, step: int) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.resumed(step)

    def stepped(self, report: StepReport) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.stepped(report)

    def validated(self, validation: Validation, best: bool) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.validated(validation, best)

    def warned(self, text: str) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.warned(text)

    def backed_off(self, micro_batch_size: int) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.backed_off(micro_batch_size)

    def saved(self, step: int, checkpoint: Path) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.saved(step, checkpoint)


class Meter:
    """Measures a logging interval on one worker; `report` adds the workers up."""

    def __init__(self, device: torch.device, cost: Cost, peak: float) -> None:
        """`peak`: operations a second that this worker's device reaches. All workers make one."""
        self._device = device
        self._cost = cost
        self._peak = collective.total([peak])[0]
        self._started = time.perf_counter()
        self._paused = 0.0
        self._steps = 0
        self._losses: list[Tensor] = []
        self._open_interval()

    def count(self, inputs: Mapping[str, Tensor]) -> None:
        """Count the tokens of a micro-batch of this worker."""
        lengths = inputs["lengths"].to(torch.int64)
        self._work += Work(
            tokens=inputs["input_ids"].numel(),
            supervised=int((inputs["labels"] != IGNORED).sum()),
            squares=int((lengths * lengths).sum()),
        )

    def step(self, loss: Tensor) -> None:
        """Count an optimizer step; `loss` is this worker's share of the global mean."""
        self._losses.append(loss)
        self._steps += 1

    def settle(self) -> list[float]:
        """Losses of the steps since the last call, over all workers. Every worker calls it."""
        shares, self._losses = self._losses, []
        return collective.total(torch.stack(shares).tolist()) if shares else []

    def report(
        self, step: int, total_steps: int, *, loss: float, learning_rate: float, grad_norm: float
    ) -> StepReport:
        """Close the interval that ends with `step` steps done. Every worker calls it."""
        work = self._work
        sums = collective.total([work.tokens, work.supervised, self._cost.of(work)])
        memory = [int(used) for used in collective.by_rank(_memory(self._device))]
        now = time.perf_counter()
        seconds = now - self._since
        pace = (now - self._started - self._paused) / self._steps
        self._open_interval()
        tokens, supervised, operations = sums
        return StepReport(
            step=step,
            total_steps=total_steps,
            loss=loss,
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            tokens_per_second=tokens / seconds,
            supervised_tokens_per_second=supervised / seconds,
            mfu=operations / seconds / self._peak,
            memory_bytes=max(memory),
            worker_memory_bytes=memory,
            eta_seconds=(total_steps - step) * pace,
        )

    def skip(self, seconds: float) -> None:
        """Leave time that was spent on other things out of what is measured."""
        self._since += seconds
        self._paused += seconds

    def _open_interval(self) -> None:
        self._since = time.perf_counter()
        self._work = Work()


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
