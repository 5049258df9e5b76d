"""Trials compared after the same number of steps, although some were ended early."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raylora.tracking.sweeps import Point

SHARE = 3 / 4
"""Of the trials have to be there. ASHA leaves the better half, and what made it better cannot be
seen in it alone; but one trial that was stopped at once must not hold all others back."""


@dataclass(frozen=True)
class EqualSteps:
    """A metric of many trials at one step."""

    step: int
    values: Mapping[str, float]
    """By trial."""


def at_equal_steps(curves: Mapping[str, Sequence[Point]]) -> EqualSteps:
    """The last step that three quarters of the trials reached, and the metric there."""
    known = {
        trial: [point for point in points if math.isfinite(point.value)]
        for trial, points in curves.items()
    }
    lasts = sorted((points[-1].step for points in known.values() if points), reverse=True)
    if not lasts:
        return EqualSteps(0, {})
    step = lasts[math.ceil(SHARE * len(lasts)) - 1]
    reached = {trial: points for trial, points in known.items() if points}
    return EqualSteps(
        step,
        {
            trial: [point.value for point in points if point.step <= step][-1]
            for trial, points in reached.items()
            if points[0].step <= step <= points[-1].step
        },
    )
