"""Training with torch alone: every worker holds everything, gradients are summed once a step.

Weights in bf16 or fp16 have an fp32 copy that the optimizer steps, as under DeepSpeed: the two
give the same run, and a checkpoint of one is continued by the other.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist

from raylora.config.training_spec import TrainingSpec
from raylora.jobs.train.backend import State, Stepped, in_groups_order
from raylora.jobs.train.checkpoint_format import ADAM_MOMENTS, ADAM_STEPS, LOSS_SCALE
from raylora.jobs.train.gradients import LocalGradients, LossScale
from raylora.jobs.train.optimizer import (
    has_plain_moments,
    make_optimizer,
    raw_state,
    restore_raw,
    set_rate,
)
from raylora.jobs.train.parameter_groups import ParameterGroup
from raylora.jobs.train.passes import Passes


class PlainBackend:
    """A TrainingBackend for one worker, or for several that share nothing but gradients."""

    recovers = True

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        passes: Passes,
        groups: Sequence[ParameterGroup],
        training: TrainingSpec,
        dtype: torch.dtype,
    ) -> None:
        """`parameters` by their names in checkpoints."""
        self._passes = passes
        self._training = training
        self._parameters = in_groups_order(parameters, groups)
        trained = list(self._parameters.values())
        self.device = trained[0].device
        self._scale = LossScale(dtype)
        self._gradients = LocalGradients(trained, self.device)
        self._published = _in_one(trained)
        self._weights = self._published.float()
        sizes = [sum(p.numel() for p in group["params"]) for group in groups]
        masters = [nn.Parameter(part) for part in self._weights.split(sizes)]
        for master, gradient in zip(masters, self._gradients.flat.split(sizes), strict=True):
            master.grad = gradient
        self._masters = masters
        self._optimizer = make_optimizer(masters, groups, training)
        self._steps = 0

    @property
    def in_step(self) -> bool:
        return self._passes.in_step

    def backward(self, inputs: Mapping[str, Tensor], scale: float, seed: int) -> Tensor:
        factor = self._scale.value
        parameters = self._gradients.parameters
        loss, found = self._passes.gradients(inputs, scale * factor, parameters, seed)
        self._gradients.add(found, 1.0 / factor)
        return loss * scale

    def discard(self) -> None:
        self._gradients.clear()

    def step(self, learning_rate: float) -> Stepped:
        gradient = self._gradients.flat
        if dist.get_world_size() > 1:
            dist.all_reduce(gradient)
        norm = float(torch.linalg.vector_norm(gradient))
        if not math.isfinite(norm):
            self.discard()
            return Stepped(norm, skipped=self._scale.overflowed())
        gradient.mul_(min(1.0, self._training.max_grad_norm / (norm + 1e-6)))
        set_rate(self._optimizer, learning_rate)
        self._optimizer.step()
        self._publish()
        self.discard()
        self._scale.held()
        self._steps += 1
        return Stepped(norm)

    def evaluate(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self._passes.evaluate(inputs)

    def gather_state(self) -> State | None:
        if dist.get_rank() != 0:
            return None
        state = {f"weight/{name}": view.clone() for name, view in self._views(self._weights)}
        state[ADAM_STEPS] = torch.tensor(self._steps)
        state[LOSS_SCALE] = torch.tensor(self._scale.state(), dtype=torch.float64)
        if not has_plain_moments(self._training):
            return {k: v.cpu() for k, v in state.items()} | raw_state(self._optimizer)
        for moment in ADAM_MOMENTS:
            flat = torch.cat([self._moment(master, moment) for master in self._masters])
            state |= {f"{moment}/{name}": view.clone() for name, view in self._views(flat)}
        return {key: tensor.cpu() for key, tensor in state.items()}

    def load_state(self, state: State) -> None:
        for name, view in self._views(self._weights):
            view.copy_(state[f"weight/{name}"])
        self._publish()
        self._steps = int(state[ADAM_STEPS])
        self._scale.load(state[LOSS_SCALE].tolist())
        if not has_plain_moments(self._training):
            restore_raw(self._optimizer, dict(state))
            return
        for moment in ADAM_MOMENTS:
            flat = torch.empty_like(self._weights)
            for name, view in self._views(flat):
                view.copy_(state[f"{moment}/{name}"])
            sizes = [master.numel() for master in self._masters]
            for master, part in zip(self._masters, flat.split(sizes), strict=True):
                self._optimizer.state[master][moment] = part
                steps = torch.tensor(float(self._steps), device=self.device)
                self._optimizer.state[master]["step"] = steps

    def _publish(self) -> None:
        """Give the model the weights that the optimizer has."""
        self._published.copy_(self._weights)

    def _moment(self, master: nn.Parameter, moment: str) -> Tensor:
        made = self._optimizer.state[master].get(moment)
        return torch.zeros_like(master.detach()) if made is None else made

    def _views(self, flat: Tensor) -> list[tuple[str, Tensor]]:
        """Parts of a flat tensor in the shape of each parameter."""
        parts = flat.split([p.numel() for p in self._parameters.values()])
        named = zip(self._parameters.items(), parts, strict=True)
        return [(name, part.view_as(p)) for (name, p), part in named]


def _in_one(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Their weights one after the other, where they also are from then on; all of one dtype."""
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.data = part.view_as(p)
    return flat
