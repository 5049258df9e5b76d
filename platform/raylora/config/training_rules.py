"""Rules about the course of a training and what is watched meanwhile."""

from raylora.config.rule import Rule
from raylora.config.training_spec import OnSpike, Schedule

RULES: tuple[Rule, ...] = (
    Rule(
        "warm-up into decay",
        lambda s: (
            s.training.lr_scheduler is Schedule.WSD
            and s.training.warmup_ratio + s.training.decay_ratio > 1
        ),
        "training.warmup_ratio and training.decay_ratio of training.lr_scheduler=wsd come to more "
        "than all steps",
        "lower one of the two",
    ),
    Rule(
        "validation between checkpoints",
        lambda s: (
            s.training.validation_steps is not None
            and s.training.validation_steps % s.training.save_steps != 0
        ),
        "training.validation_steps is no multiple of training.save_steps, and the best step "
        "must have a checkpoint",
        "make it a multiple",
    ),
    Rule(
        "validation without held-out rows",
        lambda s: s.training.validation_steps is not None and not s.data.holds_out,
        "training.validation_steps is set, and data.validation, data.validation_split and "
        "data.validation_ratio name no held-out rows",
        "set one of them, or training.validation_steps: null",
    ),
    Rule(
        "early stopping without validation",
        lambda s: (
            s.training.early_stopping_patience is not None and s.training.validation_steps is None
        ),
        "training.early_stopping_patience counts validations, and training.validation_steps is "
        "null",
        "set training.validation_steps",
    ),
    Rule(
        "answers without validation",
        lambda s: s.training.validation_answers > 0 and s.training.validation_steps is None,
        "training.validation_answers belongs to a validation, and training.validation_steps is "
        "null",
        "set training.validation_steps, or training.validation_answers: 0",
    ),
    Rule(
        "stopping at spikes that nobody watches",
        lambda s: s.training.on_spike is OnSpike.STOP and s.training.spike_factor is None,
        "training.on_spike=stop needs to know what a spike is, and training.spike_factor is null",
        "write training.spike_factor=5, or training.on_spike=warn",
    ),
)
