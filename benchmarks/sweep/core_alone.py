"""Trials that have the base for themselves, one after another: a worker's core without Ray."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import distributed as dist

from raylora.config.model_spec import ModelSpec
from raylora.config.places import cache
from raylora.config.train_spec import TrainSpec
from raylora.jobs.data.training_data import training_data
from raylora.jobs.train.backend import make_backend
from raylora.jobs.train.checkpoint import Checkpoints
from raylora.jobs.train.loop import Setup, train
from raylora.jobs.train.loss import SupervisedLoss
from raylora.jobs.train.neftune import NoNoise
from raylora.jobs.train.observer import NullObserver, Observer, StepReport
from raylora.jobs.train.parameter_groups import parameter_groups
from raylora.jobs.train.passes import OwnPasses
from raylora.jobs.train.prepare import prepare
from raylora.jobs.train.utilisation import cost_of, matrix_peak
from raylora.jobs.train.validation import NoValidation
from raylora.lora.attach import attach, save_adapter
from raylora.lora.base import compute_dtype, load_base, load_tokenizer
from raylora.lora.devices import pick
from raylora.lora.sources import fetch


class Bench:
    """A base that is loaded once, and trained on by one trial at a time."""

    def __init__(self, model: ModelSpec) -> None:
        """The process group is there."""
        self._local, self._device = fetch(model, cache()), pick()
        self._tokenizer = load_tokenizer(self._local)
        self._base = load_base(self._local, model, self._device)
        self._dtype = compute_dtype(self._base)
        self._peak = matrix_peak(self._device.torch_device, self._dtype)

    def train(self, spec: TrainSpec, observer: Observer, checkpoints: Path) -> None:
        """Train a trial from its first step to its last."""
        with self._adapted(spec) as model:
            self._train(model, spec, observer, checkpoints)

    def train_and_save(
        self, spec: TrainSpec, observer: Observer, checkpoints: Path, adapter: Path
    ) -> None:
        """The same, and write the adapter."""
        with self._adapted(spec) as model:
            self._train(model, spec, observer, checkpoints)
            save_adapter(model, adapter, self._local, {})

    @contextmanager
    def _adapted(self, spec: TrainSpec) -> Iterator[PeftModel]:
        """The base with a fresh adapter; afterwards it is bare again."""
        model = attach(self._base, spec.lora, spec.training.seed)
        try:
            yield model
        finally:
            tuner: Any = model.base_model
            tuner.unload()

    def _train(
        self, model: PeftModel, spec: TrainSpec, observer: Observer, checkpoints: Path
    ) -> None:
        base, training = self._base, spec.training
        data = training_data(spec.data, training, self._tokenizer, Path.cwd(), 0, 1)
        route = prepare(model, base)
        loss = SupervisedLoss(model, base)
        groups = parameter_groups(dict(model.named_parameters()), spec.lora, training.weight_decay)
        passes = OwnPasses(loss, route)
        backend, _ = make_backend(loss, passes, groups, training, spec.workers, self._dtype)
        setup = Setup(
            backend=backend,
            batches=data.batches,
            training=training,
            validator=NoValidation(),
            noise=NoNoise(),
            cost=cost_of(base),
            peak=self._peak,
            micro_batch_size=training.micro_batch_size,
        )
        train(setup, observer, Checkpoints(checkpoints, training.keep_checkpoints))


class Telling(NullObserver):
    """Tells of each step and its loss."""

    def __init__(self, tell: Callable[[int, float], None]) -> None:
        self._tell = tell

    def stepped(self, report: StepReport) -> None:
        """See Observer."""
        self._tell(report.step, report.loss)


def join_group_of_one(threads: int) -> None:
    """What a worker of Ray Train has when it begins: a process group, and its share of threads."""
    torch.set_num_threads(threads)
    meeting = Path(tempfile.mkdtemp(prefix="rlb-group-")) / "store"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    shutil.rmtree(meeting.parent)
