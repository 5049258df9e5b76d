"""DeepSpeed, called directly: its settings from the spec, its engine without a compiler."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from raylora.config.training_spec import TrainingSpec
from raylora.config.workers_spec import WorkersSpec
from raylora.jobs.train.parameter_groups import ParameterGroup

DOOR_LOSS_SCALE = 1024.0
"""In fp16 the ready gradient passes through the parameters' dtype: above its smallest number."""

KEPT_WHOLE = 100_000
"""Elements up to which stage 3 leaves a parameter whole on each worker; adapters mostly are."""


def deepspeed_config(
    training: TrainingSpec, workers: WorkersSpec, dtype: torch.dtype
) -> dict[str, Any]:
    """Settings for a spec and the dtype the base computes in, on however many workers.

    Batches are the loop's: it knows how many rows and micro-batches a step has and scales losses,
    so DeepSpeed is told of one row each and never divides anything.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": training.max_grad_norm,
        "bf16": {"enabled": dtype is torch.bfloat16},
        "fp16": {
            "enabled": dtype is torch.float16,
            "loss_scale": 0.0 if workers.zero_stage == 3 else DOOR_LOSS_SCALE,
        },
        "communication_data_type": "fp32",
        "zero_optimization": _zero(workers),
        "zero_allow_untested_optimizer": True,
        # Its own CPU AdamW has to be compiled; torch's does the same.
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "torch_adam": True,
                "lr": 0.0,  # the schedule sets it before each step
                "betas": [training.adam_beta1, training.adam_beta2],
                "eps": training.adam_epsilon,
                "weight_decay": training.weight_decay,
            },
        },
    }


def make_engine(
    module: nn.Module,
    groups: Sequence[ParameterGroup],
    config: Mapping[str, Any],
    *,
    cpu_comm_op: bool,
) -> Any:
    """DeepSpeed's engine around `module`, on the process group that is there.

    Its shared-memory all-reduce for CPUs is compiled at first use (30 to 90 s with g++ and ninja)
    and fails the run where there is no compiler, so it is off unless the spec asks for it; gloo
    does the same work.
    """
    deepspeed = _import()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = cpu_comm_op
    deepspeed.init_distributed(
        dist_backend=dist.get_backend(), auto_mpi_discovery=False, verbose=False
    )
    parameters: Any = [dict(group) for group in groups]
    engine, *_ = deepspeed.initialize(
        model=module, model_parameters=parameters, config=dict(config), dist_init_required=False
    )
    return engine


def set_rate(engine: Any, learning_rate: float) -> None:
    """Give each group its part of the schedule's rate."""
    for group in engine.basic_optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]


def steps_of(engine: Any) -> int:
    """Steps that the optimizer has made, skipped ones not counted."""
    states = [state for state in engine.basic_optimizer.state.values() if "step" in state]
    return int(states[0]["step"]) if states else 0


def _import() -> Any:
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when deepspeed is imported
    # Its autotuner imports MLflow, 3 s of CPU, and goes without where that fails.
    modules: dict[str, Any] = sys.modules
    hide = "mlflow" not in modules
    if hide:
        modules["mlflow"] = None
    try:
        import deepspeed
    finally:
        if hide:
            del modules["mlflow"]
    return deepspeed


def _zero(workers: WorkersSpec) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": workers.zero_stage, "overlap_comm": False}
    if workers.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = KEPT_WHOLE
    host = {"device": "cpu", "pin_memory": False}
    if workers.offload:
        zero["offload_optimizer"] = host
    if workers.offload and workers.zero_stage == 3:
        zero["offload_param"] = host
    return zero
