"""What a sweep has shown, from its trials and their learning curves. No store, no drawing."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic_core import to_json

from raylora.config.sweep_spec import Mode
from raylora.sweeps.report.dimensions import Dimension, dimensions
from raylora.sweeps.report.equal_steps import EqualSteps, at_equal_steps
from raylora.sweeps.report.importance import Importance, importance
from raylora.sweeps.report.pareto import front
from raylora.tracking.sweep_facts import SweepDetails, SweepSummary, TrialRecord
from raylora.tracking.sweeps import Point

Curves = Mapping[str, Sequence[Point]]
"""By trial: the metric by step."""

COSTS: Mapping[str, Callable[[TrialRecord], float | None]] = {
    "adapter_bytes": lambda trial: trial.adapter_bytes,
    "duration_s": lambda trial: trial.duration_s,
}
"""What a better trial may cost, by the name of the trial's field."""


@dataclass(frozen=True)
class Tradeoff:
    """The metric against one cost."""

    cost: str
    points: Mapping[str, tuple[float, float]]
    """(cost, metric) of each trial that is over and has both."""
    front: Sequence[str]
    """The trials that no other one beats in both, the cheapest first."""


@dataclass(frozen=True)
class Findings:
    """Everything a report shows."""

    sweep: SweepSummary
    trials: Sequence[TrialRecord]
    """The best first."""
    curves: Curves
    axes: Sequence[Dimension]
    compared: EqualSteps
    importance: Importance
    tradeoffs: Sequence[Tradeoff]

    @property
    def best(self) -> TrialRecord | None:
        """The first one, unless none has a result."""
        return next((trial for trial in self.trials if self.value(trial) is not None), None)

    def value(self, trial: TrialRecord) -> float | None:
        """The trial's last value of the sweep's metric; None for a failed trial."""
        value = trial.metrics.get(self.sweep.metric, math.nan)
        return None if trial.error or math.isnan(value) else value

    def as_json(self) -> dict[str, Any]:
        """Plain data; NaN and infinities are null."""
        best = self.best
        told = {
            "sweep": self.sweep,
            "best": best and {"name": best.name, "value": self.value(best), "submit": best.submit},
            "trials": [
                {"rank": rank, "value": self.value(trial), **asdict(trial)}
                for rank, trial in enumerate(self.trials, 1)
            ],
            "axes": [axis.keys for axis in self.axes],
            "compared": self.compared,
            "importance": self.importance,
            "tradeoffs": self.tradeoffs,
            "curves": self.curves,
        }
        return json.loads(to_json(told, inf_nan_mode="null"))


def find(details: SweepDetails, curves: Curves) -> Findings:
    """What the trials show, by the metric of the sweep's summary."""
    sound = {trial.name: trial for trial in details.trials if not trial.error}
    axes = dimensions({trial.name: trial.settings for trial in details.trials})
    compared = at_equal_steps({name: curves[name] for name in sound})
    return Findings(
        sweep=details.summary,
        trials=details.ranked,
        curves=curves,
        axes=axes,
        compared=compared,
        importance=importance(axes, compared),
        tradeoffs=[_tradeoff(details, cost) for cost in COSTS],
    )


def _tradeoff(details: SweepDetails, cost: str) -> Tradeoff:
    search, price_of = details.summary, COSTS[cost]
    points: dict[str, tuple[float, float]] = {}
    for trial in details.trials:
        price, value = price_of(trial), trial.metrics.get(search.metric, math.nan)
        if trial.state.is_over and not trial.error and price is not None and math.isfinite(value):
            points[trial.name] = (price, value)
    sign = 1 if search.mode is Mode.MIN else -1
    return Tradeoff(cost, points, front({n: (c, sign * v) for n, (c, v) in points.items()}))
