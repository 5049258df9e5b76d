"""How the values of a searched key are laid along an axis of a plot."""

import math
from collections.abc import Sequence
from typing import Any

from raylora.sweeps.report.dimensions import Dimension

WIDE = 10
"""Positive numbers at least this factor apart are drawn on a logarithmic axis."""
FEW = 8
"""An axis with at most so many values has a tick at each."""


def coordinates(axis: Dimension, trials: Sequence[str]) -> list[Any]:
    """Where the trials are on a flat plot's axis; what is no number is a category."""
    values = [axis.values[trial] for trial in trials]
    return values if axis.numeric else [str(value) for value in values]


def flat_axis(axis: Dimension) -> dict[str, Any]:
    """The layout of that axis."""
    if not axis.numeric:
        return {"type": "category"}
    ticks = {"tickvals": axis.levels} if len(axis.levels) <= FEW else {}
    return {"type": "log" if _is_wide(axis) else "linear", **ticks}


def parallel_axis(axis: Dimension, trials: Sequence[str]) -> dict[str, Any]:
    """An axis of parallel coordinates, which know neither categories nor logarithms."""
    label = {"label": axis.keys[0]}
    if not axis.numeric:
        return {
            **label,
            "values": [axis.places[trial] for trial in trials],
            "tickvals": list(range(len(axis.levels))),
            "ticktext": [str(level) for level in axis.levels],
        }
    place = math.log10 if _is_wide(axis) else float
    shown = axis.levels if len(axis.levels) <= FEW else _spread(axis.levels)
    return {
        **label,
        "values": [place(axis.values[trial]) for trial in trials],
        "tickvals": [place(value) for value in shown],
        "ticktext": [f"{value:g}" for value in shown],
    }


def _is_wide(axis: Dimension) -> bool:
    return axis.levels[0] > 0 and axis.levels[-1] / axis.levels[0] >= WIDE


def _spread(levels: Sequence[float]) -> list[float]:
    """FEW of many sorted values, both ends among them."""
    return [levels[round(place * (len(levels) - 1) / (FEW - 1))] for place in range(FEW)]
