"""The bars of sweeps."""

from benchmarks.bars import (
    sweep_growth,
    sweep_killed,
    sweep_makespan,
    sweep_memory,
    sweep_numbers,
    sweep_search,
    sweep_stops,
)

MEASURES = {
    "numbers": sweep_numbers.measure,
    "makespan": sweep_makespan.measure,
    "growth": sweep_growth.measure,
    "memory": sweep_memory.measure,
    "search": sweep_search.measure,
    "killed": sweep_killed.measure,
    "stops": sweep_stops.measure,
}
"""Name for BARS=name, and what measures it."""

REPEAT_WITHIN_MIN = 60
"""The whole target ends within an hour: a repetition that would not is left out."""
