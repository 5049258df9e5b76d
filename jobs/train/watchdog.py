"""Which losses end a run, and which are worth a word. Policy only."""

import math
from collections.abc import Sequence
from statistics import median

from raylora.config.training_spec import OnSpike, TrainingSpec
from raylora.errors import JobFailed

WINDOW = 50
"""Steps whose median a loss is held against."""
FEWEST = 10
"""Steps before which nothing is a spike: the first losses fall steeply."""


def watch(step: int, loss: float, before: Sequence[float], training: TrainingSpec) -> list[str]:
    """What to warn of after the loss of step `step`; `before` are the losses of earlier steps.

    Raises JobFailed for a loss that is no number, and for a spike where the spec stops at one.
    """
    if not math.isfinite(loss):
        raise JobFailed(
            f"the loss is {loss} at step {step}: training diverged",
            hint="lower training.learning_rate, raise training.warmup_ratio or look at the "
            "rows of that step; checkpoints before it are kept",
        )
    usual = list(before)[-WINDOW:]
    if training.spike_factor is None or len(usual) < FEWEST:
        return []
    middle = median(usual)
    if loss <= training.spike_factor * middle:
        return []
    found = (
        f"the loss is {loss:.4g} at step {step}, {loss / middle:.1f} times the median of the "
        f"last {len(usual)} steps"
    )
    if training.on_spike is OnSpike.STOP:
        raise JobFailed(
            found,
            hint="lower training.learning_rate, look at the rows of that step, or write "
            "training.on_spike=warn; checkpoints before it are kept",
        )
    return [found]
