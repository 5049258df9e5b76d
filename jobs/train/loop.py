"""The training loop: micro-batches, optimizer step, observation, checkpoint.

Everything a step uses follows from (seed, step), so that a run continued from a checkpoint is the
run that was never interrupted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from raylora.config.training_spec import TrainingSpec
from raylora.errors import JobFailed
from raylora.jobs.data.batches import Batches
from raylora.jobs.train.checkpoint import Checkpoints, Progress
from raylora.jobs.train.observer import Meter, Observer
from raylora.jobs.train.outcome import Outcome
from raylora.jobs.train.schedule import learning_rate
from raylora.jobs.train.sharding import ShardedModel


@dataclass(frozen=True)
class Setup:
    """What one worker trains, and on what. The process group is initialised."""

    model: ShardedModel
    batches: Batches
    training: TrainingSpec


def train(setup: Setup, observer: Observer, checkpoints: Checkpoints) -> Outcome:
    """Train to the last step, from the newest good checkpoint on. Every worker calls it.

    Raises JobFailed, on all workers, where the loss is no number or a checkpoint is of other data.
    """
    model, batches, training = setup.model, setup.batches, setup.training
    total = batches.total_steps
    start = _resume(setup, checkpoints)
    observer.resumed(start)
    meter, loss = Meter(model.device), float("nan")
    for step in range(start, total):
        torch.manual_seed(_seed(training.seed, step))
        share = _backward(setup, step, meter)
        rate = learning_rate(step, total, training)
        grad_norm = model.step(rate)
        meter.step(share)
        done = step + 1
        if done % training.logging_steps == 0 or done == total:
            report = meter.report(done, total, learning_rate=rate, grad_norm=grad_norm)
            observer.stepped(report)
            loss = report.loss
        if done % training.save_steps == 0 or done == total:
            _save(setup, done, observer, checkpoints)
    return Outcome(steps=total, resumed_step=start, loss=loss)


def _resume(setup: Setup, checkpoints: Checkpoints) -> int:
    """Load the newest good checkpoint; the number of steps it has done."""
    # One worker looks and checks hashes; the others must not choose another one.
    found = [checkpoints.newest() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found, src=0)
    checkpoint = found[0]
    if checkpoint is None:
        return 0
    state, progress = checkpoint.load()
    _refuse_other_data(progress, setup)
    setup.model.load_state(state, progress.step)
    return progress.step


def _refuse_other_data(progress: Progress, setup: Setup) -> None:
    digest = setup.batches.digest
    if progress.data_digest != digest:
        raise JobFailed(
            f"the checkpoint of step {progress.step} was trained on data {progress.data_digest}, "
            f"the spec's data is {digest}",
            hint="submit a new run for changed data or changed data settings",
        )


def _backward(setup: Setup, step: int, meter: Meter) -> Tensor:
    """Gradients of the mean loss over the global batch; this worker's share of that mean."""
    share = torch.zeros((), device=setup.model.device)
    scale = 1.0 / setup.batches.supervised_tokens(step)
    for inputs in setup.batches.step(step):
        meter.count(inputs)
        on_device = {name: tensor.to(share.device) for name, tensor in inputs.items()}
        share += setup.model.backward(on_device, scale)
    return share


def _save(setup: Setup, done: int, observer: Observer, checkpoints: Checkpoints) -> None:
    state = setup.model.gather_state()
    progress = Progress(
        step=done,
        total_steps=setup.batches.total_steps,
        seed=setup.training.seed,
        data_digest=setup.batches.digest,
    )
    if state is not None:
        checkpoints.save(state, progress)
    observer.saved(done, checkpoints.path(done))


def _seed(seed: int, step: int) -> int:
    """Of dropout: differs by run, step and worker, and needs no generator state to resume."""
    return hash((seed, step, dist.get_rank())) % 2**63
