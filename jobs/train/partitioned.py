"""DeepSpeed ZeRO 3: all weights, the frozen base's too, are split over the workers.

A layer's weights are gathered while it runs, so workers go through forward and backward passes
together. A state or an adapter is gathered whole, whatever part of it this worker holds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from raylora.jobs.train.backend import State, Stepped, in_groups_order, names_in
from raylora.jobs.train.checkpoint_format import ADAM_MOMENTS, ADAM_STEPS, LOSS_SCALE
from raylora.jobs.train.deepspeed_engine import make_engine, set_rate, steps_of
from raylora.jobs.train.parameter_groups import ParameterGroup
from raylora.jobs.train.passes import evaluating

SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What DeepSpeed's loss scale in fp16 goes by."""


class PartitionedBackend:
    """A TrainingBackend over DeepSpeed with ZeRO stage 3."""

    in_step = True
    recovers = False

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[ParameterGroup],
        config: Mapping[str, Any],
        *,
        cpu_comm_op: bool,
    ) -> None:
        self._module = module
        self._parameters = in_groups_order(names_in(module), groups)
        self._engine = make_engine(module, groups, config, cpu_comm_op=cpu_comm_op)

    @property
    def device(self) -> torch.device:
        return self._engine.device

    def backward(self, inputs: Mapping[str, Tensor], scale: float, seed: int) -> Tensor:
        # Dropout is PEFT's here, which draws from torch's own generator.
        loss = self._engine(**inputs) * scale
        # DeepSpeed averages gradients over the workers; ours are parts of one sum.
        self._engine.backward(loss * dist.get_world_size(), scale_wrt_gas=False)
        return loss.detach()

    def discard(self) -> None:
        raise AssertionError("gradients are reduced as they are made; nobody tries again")

    def step(self, learning_rate: float) -> Stepped:
        set_rate(self._engine, learning_rate)
        self._engine.step()
        if self._engine.optimizer.overflow:
            return Stepped(math.inf, skipped=self._engine.fp16_enabled())
        return Stepped(float(self._engine.get_global_grad_norm()))

    def evaluate(self, inputs: Mapping[str, Tensor]) -> Tensor:
        with evaluating(self._module):
            return self._module(**inputs)

    def gather_state(self) -> State | None:
        optimizer = self._engine.optimizer
        state: dict[str, Tensor] = {
            ADAM_STEPS: torch.tensor(steps_of(self._engine)),
            LOSS_SCALE: torch.tensor(self._scaler(), dtype=torch.float64),
        }
        for name, parameter in self._parameters.items():
            state[f"weight/{name}"] = optimizer.get_full_hp_param(parameter)
            for moment in ADAM_MOMENTS:
                state[f"{moment}/{name}"] = optimizer.get_full_hp_param(parameter, moment)
        if dist.get_rank() != 0:
            return None
        return {key: tensor.detach().cpu().clone() for key, tensor in state.items()}

    def load_state(self, state: State) -> None:
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        adam = self._engine.basic_optimizer.state
        for flat in self._engine.optimizer.fp32_partitioned_groups_flat:
            for moment in ADAM_MOMENTS:
                adam[flat].setdefault(moment, torch.zeros_like(flat))
            adam[flat]["step"] = torch.tensor(float(state[ADAM_STEPS]))
        for name, parameter in self._parameters.items():
            weight = state[f"weight/{name}"].to(self.device)
            safe_set_local_fp32_param(parameter, _own(parameter, weight))
            for moment in ADAM_MOMENTS:
                whole = state[f"{moment}/{name}"].to(self.device)
                safe_set_local_optimizer_state(parameter, _own(parameter, whole), moment)
            _publish(parameter, weight)
        scaler = self._engine.optimizer.loss_scaler
        for key, value in zip(SCALER, state[LOSS_SCALE].tolist(), strict=False):
            if hasattr(scaler, key):
                setattr(scaler, key, value if key == "cur_scale" else int(value))

    def _scaler(self) -> list[float]:
        scaler = self._engine.optimizer.loss_scaler
        return [float(getattr(scaler, key, 0)) for key in SCALER]


def _own(parameter: Any, whole: Tensor) -> Tensor:
    """This worker's part of a full tensor; the last parts are filled up with zeros."""
    size = parameter.ds_tensor.numel()
    padded = torch.zeros(size * dist.get_world_size(), device=whole.device)
    padded[: whole.numel()] = whole.reshape(-1)
    return padded[size * dist.get_rank() :][:size]


def _publish(parameter: Any, weight: Tensor) -> None:
    """Let the forward pass see a weight before the next step would."""
    parameter.ds_tensor.data.copy_(_own(parameter, weight))
    if parameter.data.numel() == weight.numel():  # small ones stay gathered on every worker
        parameter.data.copy_(weight)
