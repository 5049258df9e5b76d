"""What a finished training loop has to say; light, so that a driver can read it without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """A finished loop."""

    steps: int
    """Optimizer steps done; fewer than planned where validation stopped the run early."""
    resumed_step: int
    """Where the last attempt began; 0 for one that was never interrupted."""
    loss: float
    """Mean per supervised token over the last logging interval."""
    kept_step: int
    """The step whose weights the model has now: the best by validation, or the last."""
