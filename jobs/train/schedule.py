"""The learning rate as a function of the step: linear warm-up, then linear, cosine or constant."""

import math

from raylora.config.train_spec import Schedule, TrainingSpec


def learning_rate(step: int, total_steps: int, training: TrainingSpec) -> float:
    """Rate of optimizer step `step`, counted from 0, out of `total_steps`.

    Warm-up takes the first ceil(warmup_ratio * total_steps) steps and never uses a rate of 0, so
    that no step is wasted. Linear and cosine would reach 0 one step after the last.
    """
    warmup = math.ceil(training.warmup_ratio * total_steps)
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    return training.learning_rate * _decay(training.lr_scheduler, done)


def _decay(schedule: Schedule, done: float) -> float:
    match schedule:
        case Schedule.CONSTANT:
            return 1.0
        case Schedule.LINEAR:
            return 1.0 - done
        case Schedule.COSINE:
            return 0.5 * (1.0 + math.cos(math.pi * done))
