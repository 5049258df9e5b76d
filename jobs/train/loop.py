"""The training loop: micro-batches, optimizer step, observation, validation, checkpoint.

Everything a step uses follows from (seed, step) and the state that checkpoints hold, so that a run
continued from one is the run that was never interrupted.
"""

import math
import time
from dataclasses import dataclass
from statistics import fmean

from torch import distributed as dist

from raylora.config.training_spec import TrainingSpec
from raylora.errors import JobFailed
from raylora.jobs.train import collective
from raylora.jobs.train.backend import TrainingBackend
from raylora.jobs.train.checkpoint import Checkpoints, Progress
from raylora.jobs.train.gradient_step import GradientStep, StepSource
from raylora.jobs.train.neftune import Noise
from raylora.jobs.train.observer import Meter, Observer
from raylora.jobs.train.outcome import Outcome
from raylora.jobs.train.schedule import learning_rate
from raylora.jobs.train.utilisation import Cost
from raylora.jobs.train.validation import (
    Validation,
    Validator,
    best_of,
    is_out_of_patience,
)
from raylora.jobs.train.watchdog import WINDOW, watch


@dataclass(frozen=True)
class Setup:
    """What one worker trains, and on what. The process group is initialised."""

    backend: TrainingBackend
    batches: StepSource
    training: TrainingSpec
    validator: Validator
    noise: Noise
    cost: Cost
    """Of the model, for utilisation."""
    peak: float
    """Operations a second that this worker's device reaches."""
    micro_batch_size: int
    """Rows per forward pass to begin with: the spec's, or fewer where memory ran out before."""


def train(setup: Setup, observer: Observer, checkpoints: Checkpoints) -> Outcome:
    """Train to the last step, from the newest good checkpoint on. Every worker calls it.

    The model ends with the best weights where the spec keeps them, else with the last. Raises
    JobFailed, on all workers, where the loss is no number or a checkpoint is of other data.
    """
    training, total = setup.training, setup.batches.total_steps
    run = _Run(setup, observer, checkpoints)
    start = run.resume()
    observer.resumed(start)
    gradients = GradientStep(
        setup.backend, setup.batches, setup.micro_batch_size, setup.noise, observer
    )
    meter = Meter(setup.backend.device, setup.cost, setup.peak)
    step = start
    while step < total and not is_out_of_patience(run.validations, training):
        rate = learning_rate(step, total, training)
        meter.step(gradients.compute(step, _seed(training.seed, step), meter.count))
        stepped = setup.backend.step(rate)
        step += 1
        if not math.isfinite(stepped.grad_norm) and not stepped.skipped:
            run.settle(meter, step)
            raise _lost(stepped.grad_norm, step)
        if step % training.logging_steps == 0 or step == total:
            run.settle(meter, step)
            loss = run.interval_loss(step)
            observer.stepped(
                meter.report(
                    step, total, loss=loss, learning_rate=rate, grad_norm=stepped.grad_norm
                )
            )
        if setup.validator.is_due(step, total):
            run.validate(meter, step, gradients.micro_batch_size)
        if step % training.save_steps == 0 or step == total:
            run.settle(meter, step)
            run.save(step)
    kept = run.take_best(step)
    return Outcome(step, start, run.interval_loss(step), kept)


class _Run:
    """What a run remembers from step to step, and its checkpoints."""

    def __init__(self, setup: Setup, observer: Observer, checkpoints: Checkpoints) -> None:
        self._setup = setup
        self._observer = observer
        self._checkpoints = checkpoints
        self._remembered = max(WINDOW, setup.training.logging_steps)
        self.losses: list[float] = []
        self.validations: list[Validation] = []

    def resume(self) -> int:
        """Load the newest good checkpoint; the number of steps it has done."""
        # One worker looks and checks hashes; the others must not choose another one.
        first = dist.get_rank() == 0
        checkpoint = collective.from_first(self._checkpoints.newest() if first else None)
        if checkpoint is None:
            return 0
        state, progress = checkpoint.load()
        self._refuse_other_data(progress)
        self._setup.backend.load_state(state)
        self.losses, self.validations = progress.losses, progress.validations
        return progress.step

    def settle(self, meter: Meter, step: int) -> None:
        """Bring the losses up to `step`, and look at the new ones."""
        fresh = meter.settle()
        for number, loss in enumerate(fresh, step - len(fresh) + 1):
            for warning in watch(number, loss, self.losses, self._setup.training):
                self._observer.warned(warning)
            self.losses = [*self.losses, loss][-self._remembered :]

    def interval_loss(self, step: int) -> float:
        """Mean loss of the logging interval that ends with `step` steps done."""
        steps = (step - 1) % self._setup.training.logging_steps + 1
        return fmean(self.losses[-steps:]) if self.losses else math.nan

    def validate(self, meter: Meter, step: int, micro_batch_size: int) -> None:
        began = time.perf_counter()
        found = self._setup.validator.look(self._setup.backend, step, micro_batch_size)
        self.validations = [*self.validations, found]
        self._observer.validated(found, best_of(self.validations) is found)
        meter.skip(time.perf_counter() - began)

    def save(self, step: int) -> None:
        state = self._setup.backend.gather_state()
        progress = Progress(
            step=step,
            total_steps=self._setup.batches.total_steps,
            seed=self._setup.training.seed,
            data_digest=self._setup.batches.digest,
            losses=self.losses,
            validations=self.validations,
        )
        if state is not None:
            self._checkpoints.save(state, progress)
        self._observer.saved(step, self._checkpoints.path(step))

    def take_best(self, step: int) -> int:
        """Put the best weights into the model where the spec keeps them; of which step it is."""
        best = best_of(self.validations)
        if best is None or best.step == step or not self._setup.training.keep_best:
            return step
        first = dist.get_rank() == 0
        kept = collective.from_first(self._checkpoints.of_step(best.step) if first else None)
        if kept is None:
            self._observer.warned(
                f"the best weights, of step {best.step}, are lost: the last stay"
            )
            return step
        self._setup.backend.load_state(kept.load()[0])
        return best.step

    def _refuse_other_data(self, progress: Progress) -> None:
        digest = self._setup.batches.digest
        if progress.data_digest != digest:
            raise JobFailed(
                f"the checkpoint of step {progress.step} was trained on data "
                f"{progress.data_digest}, the spec's data is {digest}",
                hint="submit a new run for changed data or changed data settings",
            )


def _lost(grad_norm: float, step: int) -> JobFailed:
    return JobFailed(
        f"the gradient is {grad_norm} at step {step}: training diverged",
        hint="lower training.learning_rate, raise training.warmup_ratio or look at the rows of "
        "that step; checkpoints before it are kept",
    )


def _seed(seed: int, step: int) -> int:
    """Of dropout and noise: differs by run, step and worker, and needs no generator state."""
    return hash((seed, step, dist.get_rank())) % 2**63
