"""The bars of sweeps."""

from benchmarks.sweep import growth, killed, makespan, memory, numbers, search, stops

MEASURES = {
    "numbers": numbers.measure,
    "makespan": makespan.measure,
    "growth": growth.measure,
    "memory": memory.measure,
    "search": search.measure,
    "killed": killed.measure,
    "stops": stops.measure,
}
"""Name for BARS=name, and what measures it."""

REPEAT_WITHIN_MIN = 60
"""The whole target ends within an hour: a repetition that would not is left out."""
