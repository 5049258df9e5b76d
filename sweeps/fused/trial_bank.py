"""One frozen base, and the adapters of all trials that train on it at the moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from raylora.config.lora_spec import LoraSpec
from raylora.config.train_spec import TrainSpec
from raylora.jobs.train.backend import TrainingBackend
from raylora.jobs.train.loss import SupervisedLoss
from raylora.jobs.train.parameter_groups import parameter_groups
from raylora.jobs.train.passes import Passes
from raylora.jobs.train.plain import PlainBackend
from raylora.jobs.train.prepare import prepare
from raylora.jobs.train.route import ALONE
from raylora.lora.attach import adapter_parameters, attach, attach_beside
from raylora.lora.base import compute_dtype
from raylora.sweeps.fused.shared_passes import SharedPasses

MOST_TOKENS = 1024
"""Of a pass: beyond it a larger one is no faster on a CPU (SmolLM2: 335 tokens/s at 540, 379 at
1080), and its activations need more memory."""


class TrialBank:
    """Adapters enter and leave; `passes` answers for those that are in."""

    def __init__(
        self, base: PreTrainedModel, lora: LoraSpec, most_tokens: int = MOST_TOKENS
    ) -> None:
        """`lora` says which layers are adapted: the same in all trials."""
        # PEFT has no model without an adapter: this one sees no token and is never trained.
        idle = lora.model_copy(update={"r": 1, "rank_pattern": {}, "alpha_pattern": {}})
        self.model: PeftModel = attach(base, idle, 0)
        self.base = base
        self._dtype = compute_dtype(base)
        route = prepare(self.model, base)
        self.passes = SharedPasses(SupervisedLoss(self.model, base), route, most_tokens)

    def enter(self, name: str, spec: TrainSpec, passes: Passes) -> TrainingBackend:
        """Put a trial's fresh adapter on the base; what trains it, by way of `passes`."""
        attach_beside(self.model, spec.lora, spec.training.seed, name)
        own = adapter_parameters(self.model, name)
        groups = parameter_groups(own, spec.lora, spec.training.weight_decay)
        canonical = {key.replace(f".{name}.", f".{ALONE}."): p for key, p in own.items()}
        return PlainBackend(canonical, passes, groups, spec.training, self._dtype)

    def leave(self, name: str) -> None:
        """Take a trial's adapter off the base, if it is there."""
        if name in self.adapters:
            self.model.delete_adapter(name)

    @contextmanager
    def alone(self, name: str) -> Iterator[PeftModel]:
        """Within: PEFT's own layers compute with this adapter."""
        required = {p: p.requires_grad for p in self.model.parameters()}
        self.model.set_adapter(name)
        try:
            yield self.model
        finally:
            self.model.set_adapter(ALONE)
            for parameter, was in required.items():
                parameter.requires_grad_(was)

    @property
    def adapters(self) -> list[str]:
        """Names of the trials that are in."""
        config: dict[str, Any] = self.model.peft_config
        return [name for name in config if name != ALONE]
