"""AdamW over flat fp32 weights, one tensor a group, and its state as checkpoints keep it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from raylora.config.training_spec import Optimizer, TrainingSpec
from raylora.errors import JobFailed
from raylora.jobs.train.parameter_groups import ParameterGroup


def make_optimizer(
    weights: Sequence[torch.nn.Parameter],
    groups: Sequence[ParameterGroup],
    training: TrainingSpec,
) -> torch.optim.Optimizer:
    """One of AdamW's kinds; `weights` has the flat weights of each group."""
    parts: list[dict[str, Any]] = [
        {
            "params": [weight],
            "lr_scale": group["lr_scale"],
            "weight_decay": group["weight_decay"],
        }
        for weight, group in zip(weights, groups, strict=True)
    ]
    common: dict[str, Any] = {
        "lr": 0.0,  # the schedule sets it before each step
        "betas": (training.adam_beta1, training.adam_beta2),
        "eps": training.adam_epsilon,
    }
    if training.optimizer is Optimizer.ADAMW:
        return torch.optim.AdamW(parts, **common, fused=True)
    from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW, PagedAdamW8bit

    kinds: dict[Optimizer, Any] = {
        Optimizer.ADAMW_8BIT: AdamW8bit,
        Optimizer.PAGED_ADAMW: PagedAdamW,
        Optimizer.PAGED_ADAMW_8BIT: PagedAdamW8bit,
    }
    return kinds[training.optimizer](parts, **common)


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give each group its part of the schedule's rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]


def has_plain_moments(training: TrainingSpec) -> bool:
    """Whether moments are fp32 numbers by weight, which any backend can go on from."""
    return training.optimizer is Optimizer.ADAMW


def raw_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments as the optimizer packs them, by "optimizer/GROUP/KEY"; what restore_raw takes."""
    packed: dict[str, Tensor] = {}
    for i, group in enumerate(optimizer.param_groups):
        for key, value in optimizer.state[group["params"][0]].items():
            packed[f"optimizer/{i}/{key}"] = torch.as_tensor(value).detach().cpu().clone()
    return packed


def restore_raw(optimizer: Any, state: dict[str, Tensor]) -> None:
    """Go on from raw_state of an optimizer of the same kind."""
    optimizer.check_overrides()
    for i, group in enumerate(optimizer.param_groups):
        weight = group["params"][0]
        optimizer.init_state(group, weight, i, 0)
        for key, now in optimizer.state[weight].items():
            kept = state.get(f"optimizer/{i}/{key}")
            if kept is None:
                raise JobFailed(
                    "the checkpoint was made by another optimizer",
                    hint="submit a new run after changing training.optimizer",
                )
            if isinstance(now, Tensor):
                now.copy_(kept)
            else:
                optimizer.state[weight][key] = type(now)(kept.item())
    optimizer.initialized = True
