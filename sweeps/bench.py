"""What the trials of a slot share: one base on each worker, its tokenizer, and their adapters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import distributed as dist
from transformers import PreTrainedModel

from raylora.config.places import cache
from raylora.config.train_spec import TrainSpec
from raylora.jobs import probe
from raylora.jobs.data.training_data import TrainingData, training_data
from raylora.jobs.saving import Trained
from raylora.jobs.train.backend import TrainingBackend
from raylora.jobs.train.loop import Setup
from raylora.jobs.train.neftune import NoNoise
from raylora.jobs.train.passes import unpacked
from raylora.jobs.train.utilisation import Cost, cost_of, matrix_peak
from raylora.jobs.train.validation import HeldOut, NoValidation, Validator
from raylora.lora.base import compute_dtype, load_base, load_tokenizer
from raylora.lora.devices import pick
from raylora.lora.sources import LocalModel, fetch
from raylora.sweeps.fused.trial_bank import TrialBank


@dataclass(frozen=True)
class Bench:
    """What the trials of a slot share."""

    bank: TrialBank
    tokenizer: Any
    local: LocalModel
    implementation: str
    """How the base attends to rows that are not packed."""
    cost: Cost
    peak: float

    @classmethod
    def of(cls, spec: TrainSpec) -> "Bench":
        """Load the base."""
        local, device = fetch(spec.model, cache()), pick()
        base: PreTrainedModel = load_base(local, spec.model, device)
        config: Any = base.config
        implementation: str = config._attn_implementation
        cost, dtype = cost_of(base), compute_dtype(base)
        bank = TrialBank(base, spec.lora)
        if spec.training.activation_checkpointing:
            base.activation_checkpointing_enable({"use_reentrant": False})
        peak = matrix_peak(device.torch_device, dtype)
        return cls(bank, load_tokenizer(local), local, implementation, cost, peak)

    def data(self, spec: TrainSpec) -> TrainingData:
        """What a trial trains on, on this worker."""
        rank, world = dist.get_rank(), dist.get_world_size()
        return training_data(spec.data, spec.training, self.tokenizer, Path.cwd(), rank, world)

    def setup(self, spec: TrainSpec, backend: TrainingBackend, data: TrainingData) -> Setup:
        """What a trial's loop is given."""
        return Setup(
            backend=backend,
            batches=data.batches,
            training=spec.training,
            validator=_validator(spec, data),
            noise=NoNoise(),
            cost=self.cost,
            peak=self.peak,
            micro_batch_size=spec.training.micro_batch_size,
        )

    def record(self, name: str, data: TrainingData) -> probe.Recording:
        """What the base gives with the adapter of a trial that is in."""
        with self.bank.alone(name) as model, unpacked(self.bank.base, self.implementation):
            return probe.record(model, data.sample.input_ids)

    def trained(self, name: str, data: TrainingData, recording: probe.Recording) -> Trained:
        """The adapter of a trial that is in."""
        return Trained(self.bank.model, self.local, data, recording, self.tokenizer, name)


def _validator(spec: TrainSpec, data: TrainingData) -> Validator:
    if spec.training.validation_steps is None or data.held_out is None:
        return NoValidation()
    return HeldOut(data.held_out, spec.training, dist.get_rank(), dist.get_world_size())
