"""The one seam to DeepSpeed: a model whose optimizer state is split over the workers.

DeepSpeed is called directly with a config generated from the spec. Its optional shared-memory
all-reduce for CPUs is compiled at first use (30 to 90 s with g++ and ninja) and fails the run
where there is no compiler, so it is off unless the spec asks for it; gloo does the same work.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from raylora.config.training_spec import TrainingSpec
from raylora.config.workers_spec import WorkersSpec

ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")
STATE_PARTS = ("weight", *ADAM_MOMENTS)
"""What one parameter has in a checkpoint, each in fp32 and in the parameter's own shape."""


def deepspeed_config(
    training: TrainingSpec, workers: WorkersSpec, dtype: torch.dtype
) -> dict[str, Any]:
    """DeepSpeed's JSON for a spec and the dtype the base computes in."""
    rows_per_worker = training.global_batch_size // workers.least
    return {
        "train_batch_size": training.global_batch_size,
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": rows_per_worker // training.micro_batch_size,
        # Gradients add up locally and are reduced once, when the optimizer steps.
        "managed_gradient_accumulation": False,
        "gradient_clipping": training.max_grad_norm,
        "bf16": {"enabled": dtype is torch.bfloat16},
        "fp16": {"enabled": dtype is torch.float16},
        "communication_data_type": "fp32",
        "zero_optimization": {"stage": workers.zero_stage, "overlap_comm": False},
        "zero_allow_untested_optimizer": True,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "torch_adam": True,
                # The schedule sets the rate before each step.
                "lr": 0.0,
                "betas": [0.9, 0.999],
                "eps": 1e-8,
                "weight_decay": training.weight_decay,
            },
        },
    }


class ShardedModel:
    """Gradient accumulation, clipping and AdamW over all workers of the process group."""

    def __init__(self, module: nn.Module, config: Mapping[str, Any], *, cpu_comm_op: bool) -> None:
        """Shard the trainable parameters of `module`, whose forward pass gives a scalar."""
        self._engine = _initialize(module, config, cpu_comm_op)
        self._adam: torch.optim.AdamW = self._engine.basic_optimizer
        self._parameters = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
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
        """Where inputs belong."""
        return self._engine.device

    def backward(self, inputs: Mapping[str, Tensor], scale: float) -> Tensor:
        """Add the gradient of scale * forward(inputs), summed over workers; return that value."""
        loss = self._engine(**inputs) * scale
        # DeepSpeed averages gradients over the workers; ours are parts of one sum.
        self._engine.backward(loss * dist.get_world_size(), scale_wrt_gas=False)
        return loss.detach()

    def step(self, learning_rate: float) -> float:
        """One optimizer step on the added gradients; their norm before clipping."""
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        return float(self._engine.get_global_grad_norm() or self._grad_norm)

    def gather_state(self) -> dict[str, Tensor] | None:
        """Full fp32 weights and Adam moments by "PART/NAME", on rank 0; None elsewhere.

        Every worker must call it. The result does not depend on how many there are.
        """
        full = torch.zeros(len(STATE_PARTS), self._numel, device=self.device)
        for piece in self._pieces():
            if piece.replicated and dist.get_rank() != 0:
                continue
            for row, part in zip(full, self._local(piece), strict=True):
                row[piece.target].copy_(part)
        dist.reduce(full, dst=0)
        return self._named(full.cpu()) if dist.get_rank() == 0 else None

    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """Continue after `step` optimizer steps from what gather_state gave."""
        full = torch.zeros(len(STATE_PARTS), self._numel, device=self.device)
        for key, view in self._named(full).items():
            view.copy_(state[key])
        for piece in self._pieces():
            adam = self._adam.state.setdefault(piece.master, {})
            for moment in ADAM_MOMENTS:
                adam.setdefault(moment, torch.zeros_like(piece.master))
            adam["step"] = torch.tensor(float(step))
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
        parts = [piece.master.data, *(moments[name] for name in ADAM_MOMENTS)]
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


def _initialize(module: nn.Module, config: Mapping[str, Any], cpu_comm_op: bool) -> Any:
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when deepspeed is imported
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = cpu_comm_op
    deepspeed.init_distributed(
        dist_backend=dist.get_backend(), auto_mpi_discovery=False, verbose=False
    )
    trainable: Any = [p for p in module.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=module, model_parameters=trainable, config=dict(config), dist_init_required=False
    )
    return engine
