"""One Ray Train worker: the numeric core with Ray, the run's folders and MLflow around it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from peft import PeftModel
from torch import distributed as dist
from transformers import PreTrainedModel

from raylora.cluster.bundle import as_named
from raylora.cluster.events import Event, StageEvent, Tell, emit
from raylora.config.places import cache
from raylora.config.train_spec import TrainSpec
from raylora.errors import RayloraError
from raylora.jobs import probe
from raylora.jobs.answering import HeldOutAnswers
from raylora.jobs.assignment import Assignment
from raylora.jobs.attempts import Attempts
from raylora.jobs.data.training_data import TrainingData, training_data
from raylora.jobs.reporter import Follower, Reporter
from raylora.jobs.saving import Trained, save_trained, write_json
from raylora.jobs.train import backoff, collective
from raylora.jobs.train.backend import TrainingBackend, make_backend, weights_of
from raylora.jobs.train.checkpoint import Checkpoints
from raylora.jobs.train.loop import Setup, train
from raylora.jobs.train.loss import SupervisedLoss
from raylora.jobs.train.neftune import noise_on
from raylora.jobs.train.observer import Observer, Observers
from raylora.jobs.train.outcome import Outcome
from raylora.jobs.train.parameter_groups import parameter_groups
from raylora.jobs.train.passes import OwnPasses, unpacked
from raylora.jobs.train.prepare import prepare
from raylora.jobs.train.utilisation import cost_of, matrix_peak
from raylora.jobs.train.validation import Answers, HeldOut, NoValidation, Validator
from raylora.lora.attach import attach
from raylora.lora.base import compute_dtype, load_base, load_tokenizer
from raylora.lora.devices import pick
from raylora.lora.sources import LocalModel, fetch

DEEPSPEED_CONFIG = "deepspeed.json"
"""In the run's metadata: what DeepSpeed was given."""


@dataclass(frozen=True)
class Prepared:
    """What a worker has when training can begin."""

    setup: Setup
    model: PeftModel
    base: PreTrainedModel
    implementation: str
    """How the base attends to rows that are not packed."""
    local: LocalModel
    data: TrainingData
    tokenizer: Any


def train_worker(
    assignment: Assignment, *also: Observer, tell: Tell = emit
) -> Outcome | RayloraError:
    """Train on this worker, from the newest good checkpoint on; the first one saves the adapter.

    What the user has to mend is returned, by all workers alike: raised, Ray would try it again.
    also: observers on every worker, after the run's own. tell: takes the first worker's events.
    """
    spec, places = assignment.spec, assignment.places
    first = dist.get_rank() == 0
    # More threads than CPUs cost 3 to 20 times; Ray sets 1 where CPUs are a fraction.
    torch.set_num_threads(max(1, int(spec.workers.cpus_per_worker)))
    torch.use_deterministic_algorithms(spec.training.deterministic)
    attempts = Attempts(places)
    size = _micro_batch_size(spec, attempts)
    reporter = Reporter(assignment, attempts, size, tell) if first else Follower(assignment)
    try:
        told = tell if first else _silent
        prepared = collective.agreed(lambda: _prepare(assignment, size, told))
        checkpoints = Checkpoints(places.checkpoints, spec.training.keep_checkpoints)
        outcome = train(prepared.setup, Observers(reporter, *also), checkpoints)
        _save_adapter(assignment, prepared, outcome)
        return outcome
    except RayloraError as error:
        return error
    except Exception as error:
        if backoff.is_out_of_memory(error):
            attempts.memory_ran_out(f"worker {dist.get_rank()}: {error}")
        raise
    finally:
        reporter.close()


def _micro_batch_size(spec: TrainSpec, attempts: Attempts) -> int:
    """Rows in a forward pass: fewer than the spec's where memory ran out before, alike on all."""
    local_first = ray.train.get_context().get_local_rank() == 0
    killed = local_first and attempts.was_killed_for_memory()
    first = dist.get_rank() == 0
    short = collective.anyone(killed or (first and attempts.take_memory_note()))
    size = collective.from_first(attempts.micro_batch_size(spec.training.micro_batch_size))
    if short and size > 1:
        size = backoff.halved(size)
        if first:
            attempts.keep_micro_batch_size(size)
    return size


def _prepare(assignment: Assignment, micro_batch_size: int, tell: Tell) -> Prepared:
    """Load the data and the base, and put an adapter on it."""
    spec, training = assignment.spec, assignment.spec.training
    tell(StageEvent("base", spec.model.id))
    local, device = fetch(spec.model, cache()), pick()
    tokenizer: Any = load_tokenizer(local)
    base = load_base(local, spec.model, device)
    config: Any = base.config
    implementation: str = config._attn_implementation
    model = attach(base, spec.lora, training.seed)
    tell(StageEvent("data", as_named(spec.data.train_label)))
    rank, world = dist.get_rank(), dist.get_world_size()
    data = training_data(spec.data, training, tokenizer, Path.cwd(), rank, world)
    cost, dtype = cost_of(base), compute_dtype(base)  # before ZeRO 3 splits weights
    backend = _backend(assignment, model, base, dtype)
    setup = Setup(
        backend=backend,
        batches=data.batches,
        training=training,
        validator=_validator(spec, base, implementation, tokenizer, data),
        noise=noise_on(base, training.neftune_noise_alpha),
        cost=cost,
        peak=matrix_peak(device.torch_device, dtype),
        micro_batch_size=micro_batch_size,
    )
    return Prepared(setup, model, base, implementation, local, data, tokenizer)


def _backend(
    assignment: Assignment,
    model: PeftModel,
    base: PreTrainedModel,
    dtype: torch.dtype,
) -> TrainingBackend:
    spec = assignment.spec
    workers, training = spec.workers, spec.training
    route = prepare(model, base, split_weights=workers.splits_weights)
    if training.activation_checkpointing:
        base.activation_checkpointing_enable({"use_reentrant": False})
    groups = parameter_groups(dict(model.named_parameters()), spec.lora, training.weight_decay)
    loss = SupervisedLoss(model, base)
    passes = OwnPasses(loss, route)
    backend, config = make_backend(loss, passes, groups, training, workers, dtype)
    if dist.get_rank() == 0 and config:
        write_json(assignment.places.metadata / DEEPSPEED_CONFIG, config)
    return backend


def _validator(
    spec: TrainSpec, base: PreTrainedModel, implementation: str, tokenizer: Any, data: TrainingData
) -> Validator:
    if spec.training.validation_steps is None or data.held_out is None:
        return NoValidation()
    rank, world = dist.get_rank(), dist.get_world_size()
    answers: Answers = dict
    if spec.training.validation_answers and data.conversations is not None:
        answers = HeldOutAnswers(
            base, implementation, tokenizer, data.conversations, spec, rank, world
        )
    return HeldOut(data.held_out, spec.training, rank, world, answers)


def _save_adapter(assignment: Assignment, prepared: Prepared, outcome: Outcome) -> None:
    """Every worker calls it: weights may be spread over all of them."""
    data = prepared.data
    state = prepared.setup.backend.gather_state()
    with unpacked(prepared.base, prepared.implementation):
        recording = probe.record(prepared.model, data.sample.input_ids)
    if state is not None:
        trained = Trained(
            prepared.model,
            prepared.local,
            data,
            recording,
            prepared.tokenizer,
            state=weights_of(state),
        )
        save_trained(assignment, trained, outcome)


def _silent(event: Event) -> None:
    """What workers other than the first tell."""
