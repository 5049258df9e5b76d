"""What a version must show before an alias moves to it."""

from pydantic import Field

from raylora.config.spec import NonEmpty, Spec


class GateSpec(Spec):
    """Kept with each version when it is registered, and asked when it is promoted.

    Metrics are those of the version's run, as `raylora runs show` names them. That the files are
    those that were registered is always asked.
    """

    at_least: dict[NonEmpty, float] = {}
    """Lowest value of a metric, such as heldout_exact_match: 0.9. A missing metric fails."""
    at_most: dict[NonEmpty, float] = {}
    """Highest value of a metric, such as final_loss: 0.5. A missing metric fails."""
    no_regression: tuple[NonEmpty, ...] | None = None
    """Metrics in which the version may not be worse, row by row, than the one that the alias
    points at; null takes all that both have scores of. [] compares nothing."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the interval of that difference: worse is what lies below 0 with all of it."""
