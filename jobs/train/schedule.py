"""The learning rate as a function of the step: linear warm-up, then what the spec names."""

import math

from raylora.config.training_spec import Schedule, TrainingSpec


def learning_rate(step: int, total_steps: int, training: TrainingSpec) -> float:
    """Rate of optimizer step `step`, counted from 0, out of `total_steps`.

    Warm-up takes the first ceil(warmup_ratio * total_steps) steps and never uses a rate of 0, so
    that no step is wasted. Decays would reach 0 one step after the last; wsd decays over the last
    ceil(decay_ratio * total_steps) steps (Hu et al., 2024).
    """
    warmup = math.ceil(training.warmup_ratio * total_steps)
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    decaying = math.ceil(training.decay_ratio * total_steps)
    match training.lr_scheduler:
        case Schedule.CONSTANT:
            share = 1.0
        case Schedule.LINEAR:
            share = 1.0 - done
        case Schedule.COSINE:
            share = 0.5 * (1.0 + math.cos(math.pi * done))
        case Schedule.WSD:
            share = min(1.0, (total_steps - step) / decaying)
    return training.learning_rate * share
