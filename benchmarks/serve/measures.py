"""The bars of serving."""

from benchmarks.serve import (
    alias,
    base,
    clients,
    cold,
    generation,
    growth,
    http,
    isolation,
    limits,
)

MEASURES = {
    "generation": generation.measure,
    "base": base.measure,
    "growth": growth.measure,
    "http": http.measure,
    "isolation": isolation.measure,
    "alias": alias.measure,
    "cold": cold.measure,
    "cancel": limits.measure_cancel,
    "overload": limits.measure_overload,
    "clients": clients.measure,
}
"""Name for BARS=name, and what measures it."""

REPEAT_WITHIN_MIN = 60
"""The whole target ends within an hour: a repetition that would not is left out."""
