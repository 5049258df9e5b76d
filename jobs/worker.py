"""One Ray Train worker: the numeric core with Ray, the run's folders and MLflow around it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import ray.train
import torch
from peft import PeftModel
from torch import distributed as dist

import raylora
from raylora.cluster.events import StageEvent, emit
from raylora.config.places import cache
from raylora.errors import RayloraError
from raylora.jobs import probe
from raylora.jobs.assignment import PROBE, Assignment, spec_sha256
from raylora.jobs.data.batches import Batches
from raylora.jobs.data.encode import encode
from raylora.jobs.data.rows import Rows, read_rows
from raylora.jobs.reporter import Follower, Reporter
from raylora.jobs.train.attention import use_short_attention
from raylora.jobs.train.checkpoint import Checkpoints
from raylora.jobs.train.loop import Setup, train
from raylora.jobs.train.loss import SupervisedLoss
from raylora.jobs.train.outcome import Outcome
from raylora.jobs.train.sharding import ShardedModel, deepspeed_config
from raylora.lora import atomic
from raylora.lora.attach import attach, save_adapter
from raylora.lora.base import compute_dtype, load_base, load_tokenizer
from raylora.lora.devices import pick
from raylora.lora.sources import LocalModel, fetch

DEEPSPEED_CONFIG = "deepspeed.json"
"""In the run's metadata: what DeepSpeed was given."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Prepared:
    """What a worker has when training can begin."""

    setup: Setup
    model: PeftModel
    base: LocalModel
    rows: Rows
    probe_ids: list[int]
    """A row for the check that the saved adapter is the trained one."""


def train_worker(assignment: Assignment) -> Outcome | RayloraError:
    """Train on this worker, from the newest good checkpoint on; the first one saves the adapter.

    What the user has to mend is returned, by all workers alike: raised, Ray would try it again.
    """
    spec, places = assignment.spec, assignment.places
    first = ray.train.get_context().get_world_rank() == 0
    # More threads than CPUs cost 3 to 20 times; Ray sets 1 where CPUs are a fraction.
    torch.set_num_threads(max(1, int(spec.workers.cpus_per_worker)))
    observer = Reporter(assignment) if first else Follower()
    try:
        prepared = _agreed(lambda: _prepare(assignment, first))
        checkpoints = Checkpoints(places.checkpoints, spec.training.keep_checkpoints)
        outcome = train(prepared.setup, observer, checkpoints)
        if first:
            _save_adapter(assignment, prepared, outcome)
        return outcome
    except RayloraError as error:
        return error
    finally:
        observer.close()


def _prepare(assignment: Assignment, first: bool) -> Prepared:
    """Load the data, then the base, and put an adapter on it."""
    spec, context = assignment.spec, ray.train.get_context()
    _say(first, "base", spec.model.id)
    local = fetch(spec.model, cache())
    tokenizer = load_tokenizer(local)
    base = load_base(local, spec.model, pick())
    use_short_attention(base)
    model = attach(base, spec.lora, spec.training.seed)
    # Dropout acts in train mode only; the frozen base of a causal model has none of its own.
    model.train()
    _say(first, "data", spec.data.train)
    rows = read_rows(spec.data.train, Path.cwd())
    examples = encode(rows, tokenizer, spec.data)
    batches = Batches(examples, spec.training, context.get_world_rank(), context.get_world_size())
    config = deepspeed_config(spec.training, spec.workers, compute_dtype(base))
    if first:
        _write_json(assignment.places.metadata / DEEPSPEED_CONFIG, config)
    sharded = ShardedModel(
        SupervisedLoss(model, base), config, cpu_comm_op=spec.workers.cpu_comm_op
    )
    setup = Setup(sharded, batches, spec.training)
    return Prepared(setup, model, local, rows, examples[0].input_ids)


def _agreed(prepare: Callable[[], Prepared]) -> Prepared:
    """Prepare on every worker; where one cannot, all raise its error instead of waiting for it."""
    prepared, error = None, None
    try:
        prepared = prepare()
    except RayloraError as found:
        error = found
    errors: list[RayloraError | None] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, error)
    for found in errors:
        if found is not None:
            raise found
    assert prepared is not None
    return prepared


def _save_adapter(assignment: Assignment, prepared: Prepared, outcome: Outcome) -> None:
    """Write the finished adapter, and what it must give when it is loaded again."""
    spec, places = assignment.spec, assignment.places
    probe.record(prepared.model, prepared.probe_ids, places.metadata / PROBE)
    shutil.rmtree(places.adapter, ignore_errors=True)  # of an attempt that ended after this point
    save_adapter(
        prepared.model,
        places.adapter,
        prepared.base,
        {
            "run_id": assignment.run_id,
            "mlflow_run_id": assignment.mlflow_run_id,
            "spec_sha256": spec_sha256(assignment.spec),
            "data": {
                "source": spec.data.train,
                "sha256": prepared.rows.digest,
                "system_prompt": spec.data.system_prompt,
            },
            "quantization": spec.model.quantization.value,
            "steps": outcome.steps,
            "raylora": raylora.__version__,
        },
    )


def _say(first: bool, stage: str, detail: str) -> None:
    if first:
        emit(StageEvent(stage, detail))


def _write_json(path: Path, content: object) -> None:
    atomic.write_text(path, json.dumps(content, indent=2) + "\n")
