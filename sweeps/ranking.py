"""Which trial is the best."""

import math
from collections.abc import Sequence

from raylora.config.sweep_spec import Mode, SearchSpec
from raylora.sweeps.tuning import TrialResult


def ranked(results: Sequence[TrialResult], search: SearchSpec) -> list[TrialResult]:
    """The best first; those that went further count more, failed ones come last.

    A trial that was ended early has a value of an early step, which says nothing about others'
    later ones.
    """

    def key(result: TrialResult) -> tuple[bool, int, float]:
        value = result.metrics.get(search.metric, math.nan)
        worse = value if search.mode is Mode.MIN else -value
        return bool(result.error), -result.step, math.inf if math.isnan(worse) else worse

    return sorted(results, key=key)
