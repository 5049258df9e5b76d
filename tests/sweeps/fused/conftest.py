"""Tiny trials, alone and in a bank; a trial is a TrainSpec.

In fp64 unless said: on some CPUs larger products round differently, and six steps of Adam make
4e-5 of fp32's 1e-7.
"""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from raylora.config.data_spec import DataSpec
from raylora.config.train_spec import TrainSpec
from raylora.jobs.data.batches import Batches
from raylora.jobs.data.examples import ListedExamples
from raylora.jobs.train.backend import TrainingBackend, make_backend
from raylora.jobs.train.checkpoint import Checkpoints
from raylora.jobs.train.loop import Setup, train
from raylora.jobs.train.loss import SupervisedLoss
from raylora.jobs.train.neftune import NoNoise
from raylora.jobs.train.parameter_groups import parameter_groups
from raylora.jobs.train.passes import OwnPasses
from raylora.jobs.train.prepare import prepare
from raylora.jobs.train.utilisation import cost_of
from raylora.jobs.train.validation import HeldOut, NoValidation
from raylora.lora.attach import adapter_parameters, attach
from raylora.sweeps.fused.conductor import Conductor, Finished
from raylora.sweeps.fused.player import Player
from raylora.sweeps.fused.shared_passes import TrialPasses
from raylora.sweeps.fused.trial_bank import TrialBank


@dataclasses.dataclass
class Seen:
    """What became of a trial."""

    recorder: Any
    weights: dict[str, Tensor]
    error: BaseException | None = None


class Trials:
    """Trains tiny trials of one base."""

    def __init__(self, tiny: ModuleType, folder: Path) -> None:
        self.tiny = tiny
        self.folder = folder

    def spec(self, **keys: Any) -> TrainSpec:
        """lora and training as in a file; small otherwise."""
        training = {"max_steps": 6, "global_batch_size": 4, "micro_batch_size": 2}
        training |= {"learning_rate": 1e-2, "save_steps": 3, **keys.pop("training", {})}
        fixed = {"workers": {"num_workers": 1}, "data": {"validation_ratio": 0.1}}
        return TrainSpec.model_validate({"training": training, **fixed, **keys})

    def alone(self, spec: TrainSpec, dtype: torch.dtype = torch.float64) -> Seen:
        """As `raylora submit` would."""
        base = self.tiny.llama().to(dtype)
        model = attach(base, spec.lora, spec.training.seed)
        loss = SupervisedLoss(model, base)
        route = prepare(model, base)
        if spec.training.activation_checkpointing:
            base.activation_checkpointing_enable({"use_reentrant": False})
        groups = parameter_groups(
            dict(model.named_parameters()), spec.lora, spec.training.weight_decay
        )
        passes = OwnPasses(loss, route)
        backend = make_backend(loss, passes, groups, spec.training, spec.workers, dtype)[0]
        recorder = self.tiny.Recorder()
        self.train(spec, backend, base, recorder, "alone")
        return Seen(recorder, _weights(adapter_parameters(model, "default")))

    def together(
        self, specs: Mapping[str, TrainSpec], dtype: torch.dtype = torch.float64, **settings: Any
    ) -> dict[str, Seen]:
        """All of them in one bank."""
        base = self.tiny.llama().to(dtype)
        bank = TrialBank(base, next(iter(specs.values())).lora, **settings)
        if any(spec.training.activation_checkpointing for spec in specs.values()):
            base.activation_checkpointing_enable({"use_reentrant": False})
        conductor = Conductor(bank.passes)
        seen = {name: Seen(self.tiny.Recorder(), {}) for name in specs}
        for name, spec in specs.items():
            conductor.join(name, self.play(bank, name, spec, seen[name].recorder))
        while conductor.runnable:
            for finished in conductor.round():
                self.note(bank, finished, seen)
        return seen

    def play(self, bank: TrialBank, name: str, spec: TrainSpec, recorder: Any) -> Any:
        """What a player of the trial does."""

        def run(player: Player) -> None:
            backend = bank.enter(name, spec, TrialPasses(player, name))
            self.train(spec, backend, bank.base, recorder, name)

        return run

    def note(self, bank: TrialBank, finished: Finished, seen: Mapping[str, Seen]) -> None:
        """Keep what a finished trial has learnt, and let it leave."""
        own = seen[finished.name]
        own.error = finished.ended.error
        if finished.name not in bank.adapters:
            raise AssertionError("it never entered") from own.error
        own.weights = _weights(adapter_parameters(bank.model, finished.name))
        bank.leave(finished.name)

    def train(
        self, spec: TrainSpec, backend: TrainingBackend, base: Any, recorder: Any, name: str
    ) -> None:
        training = spec.training
        rows = ListedExamples(self.tiny.examples(24, seed=training.seed))
        batches = Batches(rows, DataSpec(), training, 0, 1)
        held_out = ListedExamples(self.tiny.examples(5, seed=99))
        validator = HeldOut(held_out, training, 0, 1) if training.validation_steps else None
        setup = Setup(
            backend,
            batches,
            training,
            validator or NoValidation(),
            NoNoise(),
            cost_of(base),
            1e12,
            training.micro_batch_size,
        )
        # A folder of its own: no run goes on from another one's checkpoints.
        folder = Path(tempfile.mkdtemp(prefix=name, dir=self.folder))
        train(setup, recorder, Checkpoints(folder, training.keep_checkpoints))


def _weights(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By layer and matrix."""
    return {
        ".".join(part for i, part in enumerate(key.split(".")) if i != len(key.split(".")) - 2): (
            parameter.detach().clone()
        )
        for key, parameter in parameters.items()
    }


@pytest.fixture
def trials(tiny: ModuleType, process_group: None, tmp_path: Path) -> Trials:
    return Trials(tiny, tmp_path)
