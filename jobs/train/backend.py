"""The seam between the loop and what keeps weights and optimizer state: torch or DeepSpeed.

    backward(...) for each micro-batch, then step(...)

Gradients of all workers are summed; the caller scales losses, so that nothing depends on how many
workers or micro-batches there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from raylora.config.training_spec import TrainingSpec
from raylora.config.workers_spec import WorkersSpec
from raylora.jobs.train.checkpoint_format import ADAM_MOMENTS, WEIGHT
from raylora.jobs.train.parameter_groups import ParameterGroup
from raylora.jobs.train.passes import Passes

State = Mapping[str, Tensor]
"""Of a run, by "PART/NAME": weight, exp_avg and exp_avg_sq of each trained parameter in fp32 and
in its own shape, and what else the optimizer needs. It does not depend on the workers."""

STATE_PARTS = ("weight", *ADAM_MOMENTS)


@dataclass(frozen=True)
class Stepped:
    """How an optimizer step went."""

    grad_norm: float
    """2-norm over all parameters, before clipping."""
    skipped: bool = False
    """fp16 overflowed: weights are as before, and the next step uses a smaller loss scale."""


class TrainingBackend(Protocol):
    """Every worker calls each method at the same time."""

    @property
    def device(self) -> torch.device:
        """Where inputs belong."""
        ...

    @property
    def in_step(self) -> bool:
        """Whether all workers must run equally many forward and backward passes."""
        ...

    @property
    def recovers(self) -> bool:
        """Whether a step whose passes ran out of memory can be tried again.

        Not where workers wait for each other within a pass.
        """
        ...

    def backward(self, inputs: Mapping[str, Tensor], scale: float, seed: int) -> Tensor:
        """Add the gradient of scale * forward(inputs); return that value.

        The seed is that of dropout.
        """
        ...

    def discard(self) -> None:
        """Forget the gradients added since the last step."""
        ...

    def step(self, learning_rate: float) -> Stepped:
        """One optimizer step on the gradients of all workers."""
        ...

    def evaluate(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """forward(inputs) without dropout and gradients."""
        ...

    def gather_state(self) -> State | None:
        """The state, on the first worker; None on the others."""
        ...

    def load_state(self, state: State) -> None:
        """Go on from what gather_state gave, under this backend or another."""
        ...


def make_backend(
    module: nn.Module,
    passes: Passes,
    groups: Sequence[ParameterGroup],
    training: TrainingSpec,
    workers: WorkersSpec,
    dtype: torch.dtype,
) -> tuple[TrainingBackend, dict[str, Any]]:
    """What the spec asks for, and the configuration that DeepSpeed was given (empty for torch).

    The forward pass of `module` gives a scalar, `passes` go through it; `dtype` is what its base
    computes in.
    """
    if not workers.uses_deepspeed:
        from raylora.jobs.train.plain import PlainBackend

        return PlainBackend(names_in(module), passes, groups, training, dtype), {}
    # Importing DeepSpeed takes 2 s of CPU.
    from raylora.jobs.train.deepspeed_engine import deepspeed_config
    from raylora.jobs.train.partitioned import PartitionedBackend
    from raylora.jobs.train.sharding import ShardedBackend

    config = deepspeed_config(training, workers, dtype)
    op = workers.cpu_comm_op
    if workers.zero_stage == 3:
        return PartitionedBackend(module, groups, config, cpu_comm_op=op), config
    named = names_in(module)
    return ShardedBackend(named, passes, groups, config, dtype, cpu_comm_op=op), config


def names_in(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by their names in the model that `module` wraps."""
    return {name.removeprefix("model."): p for name, p in module.named_parameters()}


def in_groups_order(
    parameters: Mapping[str, nn.Parameter], groups: Sequence[ParameterGroup]
) -> dict[str, nn.Parameter]:
    """Those that are in a group."""
    names = {id(p): name for name, p in parameters.items()}
    return {names[id(p)]: p for group in groups for p in group["params"]}


def weights_of(state: State) -> dict[str, Tensor]:
    """The trained weights in a state, by their name in the model."""
    return {
        key.removeprefix(WEIGHT): tensor for key, tensor in state.items() if key.startswith(WEIGHT)
    }
