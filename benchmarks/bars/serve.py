"""The bars of serving."""

from benchmarks.bars import (
    serve_alias,
    serve_base,
    serve_clients,
    serve_cold,
    serve_generation,
    serve_growth,
    serve_http,
    serve_isolation,
    serve_limits,
)

MEASURES = {
    "generation": serve_generation.measure,
    "base": serve_base.measure,
    "growth": serve_growth.measure,
    "http": serve_http.measure,
    "isolation": serve_isolation.measure,
    "alias": serve_alias.measure,
    "cold": serve_cold.measure,
    "cancel": serve_limits.measure_cancel,
    "overload": serve_limits.measure_overload,
    "clients": serve_clients.measure,
}
"""Name for BARS=name, and what measures it."""

REPEAT_WITHIN_MIN = 60
"""The whole target ends within an hour: a repetition that would not is left out."""
