"""DeepSpeed ZeRO 0 to 2: the adapter's optimizer state is split over the workers.

DeepSpeed sees the trained parameters alone, not the model: gradients are added up on each worker
first and handed over once a step, ready. Its own accumulation at stage 2 would reduce after every
micro-batch, so that all workers need equally many and none can repeat one that ran out of memory.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from raylora.jobs.train import collective
from raylora.jobs.train.backend import STATE_PARTS, State, Stepped, in_groups_order
from raylora.jobs.train.checkpoint_format import ADAM_MOMENTS, ADAM_STEPS, LOSS_SCALE
from raylora.jobs.train.deepspeed_engine import make_engine, set_rate, steps_of
from raylora.jobs.train.gradients import LocalGradients, LossScale
from raylora.jobs.train.parameter_groups import ParameterGroup
from raylora.jobs.train.passes import Passes


class ShardedBackend:
    """A TrainingBackend over DeepSpeed with ZeRO stage 0, 1 or 2."""

    in_step = False
    recovers = True

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        passes: Passes,
        groups: Sequence[ParameterGroup],
        config: Mapping[str, Any],
        dtype: torch.dtype,
        *,
        cpu_comm_op: bool,
    ) -> None:
        self._passes = passes
        self._parameters = list(in_groups_order(parameters, groups).items())
        trained = [p for _, p in self._parameters]
        self._scale = LossScale(dtype)
        self._engine = make_engine(_Door(trained), groups, config, cpu_comm_op=cpu_comm_op)
        self._gradients = LocalGradients(trained, self.device)
        self._adam: torch.optim.AdamW = self._engine.basic_optimizer
        self._max_grad_norm: float = config["gradient_clipping"]
        self._grad_norm = 0.0
        if self._engine.optimizer is self._adam:  # ZeRO 0 in fp32: DeepSpeed clips, keeps no norm
            self._engine._config.gradient_clipping = 0.0
            self._adam.register_step_pre_hook(self._clip)
        for state in self._adam.state.values():
            # ZeRO 0 in bf16 makes its Adam state by a step at rate 0; that one does not count.
            state["step"].zero_()

    @property
    def device(self) -> torch.device:
        return self._engine.device

    def backward(self, inputs: Mapping[str, Tensor], scale: float, seed: int) -> Tensor:
        factor = self._scale.value
        parameters = self._gradients.parameters
        loss, found = self._passes.gradients(inputs, scale * factor, parameters, seed)
        self._gradients.add(found, 1.0 / factor)
        return loss * scale

    def discard(self) -> None:
        self._gradients.clear()

    def step(self, learning_rate: float) -> Stepped:
        if self._scale.used and collective.anyone(not self._gradients.flat.isfinite().all()):
            self.discard()
            return Stepped(math.inf, skipped=self._scale.overflowed())
        set_rate(self._engine, learning_rate)
        handed_over = self._engine(self._gradients.views)
        # DeepSpeed averages gradients over the workers; ours are parts of one sum.
        self._engine.backward(handed_over * dist.get_world_size(), scale_wrt_gas=False)
        self._engine.step()
        self.discard()
        self._scale.held()
        return Stepped(float(self._engine.get_global_grad_norm() or self._grad_norm))

    def evaluate(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self._passes.evaluate(inputs)

    def gather_state(self) -> State | None:
        full = torch.zeros(len(STATE_PARTS), self._numel, device=self.device)
        for piece in self._pieces():
            if piece.replicated and dist.get_rank() != 0:
                continue
            for row, part in zip(full, self._local(piece), strict=True):
                row[piece.target].copy_(part)
        dist.reduce(full, dst=0)
        if dist.get_rank() != 0:
            return None
        counters = {
            ADAM_STEPS: torch.tensor(steps_of(self._engine)),
            LOSS_SCALE: torch.tensor(self._scale.state(), dtype=torch.float64),
        }
        return {name: view.clone() for name, view in self._named(full.cpu()).items()} | counters

    def load_state(self, state: State) -> None:
        full = torch.zeros(len(STATE_PARTS), self._numel, device=self.device)
        for key, view in self._named(full).items():
            view.copy_(state[key])
        self._scale.load(state[LOSS_SCALE].tolist())
        for piece in self._pieces():
            adam = self._adam.state.setdefault(piece.master, {})
            for moment in ADAM_MOMENTS:
                adam.setdefault(moment, torch.zeros_like(piece.master))
            adam["step"] = torch.tensor(float(state[ADAM_STEPS]))
            for row, part in zip(full, self._local(piece), strict=True):
                part.copy_(row[piece.target])
        weights = self._named(full)
        for name, parameter in self._parameters:
            parameter.data.copy_(weights[f"weight/{name}"])

    def _clip(self, *_: object) -> None:
        parameters = [p for _, p in self._parameters]
        self._grad_norm = float(nn.utils.clip_grad_norm_(parameters, self._max_grad_norm))

    @property
    def _numel(self) -> int:
        return sum(p.numel() for _, p in self._parameters)

    def _named(self, full: Tensor) -> dict[str, Tensor]:
        """Views of the rows of `full` in the shape of each parameter."""
        sizes = [p.numel() for _, p in self._parameters]
        return {
            f"{part}/{name}": flat.view_as(parameter)
            for part, row in zip(STATE_PARTS, full, strict=True)
            for (name, parameter), flat in zip(self._parameters, row.split(sizes), strict=True)
        }

    def _local(self, piece: "_Piece") -> list[Tensor]:
        """This worker's part of the weight and of its moments, flat, in place."""
        moments = self._adam.state[piece.master]
        master = piece.master.data
        parts = [master, *(moments.get(m, torch.zeros_like(master)) for m in ADAM_MOMENTS)]
        return [part.view(-1)[piece.source] for part in parts]

    def _pieces(self) -> "list[_Piece]":
        pieces: list[_Piece] = []
        start = 0
        for _, parameter in self._parameters:
            piece = self._piece(parameter, start)
            if piece is not None:
                pieces.append(piece)
            start += parameter.numel()
        return pieces

    def _piece(self, parameter: nn.Parameter, start: int) -> "_Piece | None":
        """Where this worker keeps the fp32 weight of a parameter; None if others keep it."""
        optimizer = self._engine.optimizer
        if hasattr(parameter, "_hp_mapping"):  # ZeRO 1 and 2: a slice of a flat fp32 partition
            fragment: Any = vars(parameter)["_hp_mapping"]
            if fragment is None:
                return None
            flat = optimizer.single_partition_of_fp32_groups[fragment.param_group_index]
            here, there = fragment.hp_fragment_address, fragment.lp_fragment_address
            return _Piece(
                flat,
                slice(here.start, here.start + here.numel),
                slice(start + there.start, start + there.start + there.numel),
                replicated=False,
            )
        master = self._replica.get(parameter, parameter)
        whole = slice(0, parameter.numel())
        return _Piece(master, whole, slice(start, start + parameter.numel()), replicated=True)

    @property
    def _replica(self) -> dict[nn.Parameter, Tensor]:
        """ZeRO 0: fp32 copy of each low-precision parameter; empty in fp32."""
        optimizer = self._engine.optimizer
        if not hasattr(optimizer, "fp32_groups"):
            return {}
        return {
            low: high
            for lows, highs in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
            for low, high in zip(lows, highs, strict=True)
        }


@dataclass(frozen=True)
class _Piece:
    """Part of one parameter: where this worker keeps it, and its place among all parameters."""

    master: Tensor
    source: slice
    target: slice
    replicated: bool


class _Door(nn.Module):
    """The trained parameters; its forward pass is 0 and has the gradients that it was given."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.trained = nn.ParameterList(parameters)

    def forward(self, gradients: list[Tensor]) -> Tensor:
        return _HandOver.apply(gradients, *self.trained)


class _HandOver(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients, ctx.dtypes = gradients, [p.dtype for p in parameters]
        return gradients[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = grads
        ready = zip(ctx.gradients, ctx.dtypes, strict=True)
        # In fp16 the factor holds DeepSpeed's loss scale, so multiply before rounding.
        return None, *((gradient * factor).to(dtype) for gradient, dtype in ready)
