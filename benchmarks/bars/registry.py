"""The bars of tracking, registry, evaluation and promotion."""

from benchmarks.bars import (
    registry_banking,
    registry_corruption,
    registry_promotion,
    registry_rerun,
    registry_tracking,
)

MEASURES = {
    "tracking": registry_tracking.measure,
    "corruption": registry_corruption.measure,
    "promotion": registry_promotion.measure,
    "banking": registry_banking.measure,
    "rerun": registry_rerun.measure,
}
"""Name for BARS=name, and what measures it."""

REPEAT_WITHIN_MIN = 60
"""The whole target ends within an hour: a repetition that would not is left out."""
