"""Optimisation: how long, how fast, in what batches, and what is watched meanwhile."""

from enum import StrEnum

from pydantic import Field

from raylora.config.spec import Spec


class Schedule(StrEnum):
    """Learning rate after warm-up."""

    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"
    WSD = "wsd"
    """Warm-up, stable, then linear decay over the last decay_ratio of the steps."""


class Optimizer(StrEnum):
    """AdamW and how its moments are stored."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    PAGED_ADAMW = "paged_adamw"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"


class OnSpike(StrEnum):
    """What happens when the loss jumps."""

    WARN = "warn"
    STOP = "stop"


class TrainingSpec(Spec):
    """AdamW with warm-up over batches of rows."""

    learning_rate: float = Field(default=1e-3, gt=0)
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the training rows; ignored when max_steps is set."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps in all; null derives it from epochs."""
    global_batch_size: int = Field(default=16, ge=1)
    """Rows per optimizer step over all workers."""
    micro_batch_size: int = Field(default=4, ge=1)
    """Rows per forward pass of one worker at most."""
    optimizer: Optimizer = Optimizer.ADAMW
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    lr_scheduler: Schedule = Schedule.LINEAR
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    decay_ratio: float = Field(default=0.2, gt=0, le=1)
    """Share of the steps in which wsd decays."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    neftune_noise_alpha: float = Field(default=0.0, ge=0)
    """Noise on embeddings while training (Jain et al., 2023); 5 is usual, 0 is none."""
    activation_checkpointing: bool = False
    """Recompute layers in the backward pass: less memory, a third more time."""
    seed: int = Field(default=0, ge=0)
    deterministic: bool = False
    """Refuse operations whose result may differ from run to run."""
    logging_steps: int = Field(default=1, ge=1)
    save_steps: int = Field(default=25, ge=1)
    """Optimizer steps between checkpoints; the last step always makes one."""
    keep_checkpoints: int = Field(default=2, ge=2)
    """At least 2: a damaged newest checkpoint falls back to the one before."""
    validation_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps between validations; a multiple of save_steps. Null validates never."""
    validation_rows: int = Field(default=256, ge=1)
    """Held-out rows whose loss a validation takes at most."""
    validation_answers: int = Field(default=0, ge=0)
    """Held-out rows that a validation answers and scores by evaluation.metrics."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after this many validations in a row without a lower loss; null never stops."""
    keep_best: bool = True
    """With validation, the adapter is that of the lowest validation loss, not the last."""
    spike_factor: float | None = Field(default=None, gt=1)
    """A loss this many times the median of the last 50 steps is a spike; null watches none."""
    on_spike: OnSpike = OnSpike.WARN
