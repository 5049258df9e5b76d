"""The bars of tracking, registry, evaluation and promotion."""

from benchmarks.registry import banking, corruption, promotion, rerun, tracking

MEASURES = {
    "tracking": tracking.measure,
    "corruption": corruption.measure,
    "promotion": promotion.measure,
    "banking": banking.measure,
    "rerun": rerun.measure,
}
"""Name for BARS=name, and what measures it."""

REPEAT_WITHIN_MIN = 60
"""The whole target ends within an hour: a repetition that would not is left out."""
