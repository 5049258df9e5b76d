"""The bars of the path from a YAML to a served adapter."""

from benchmarks.path import config, equality, faults, quickstart, suite

MEASURES = {
    "config": config.measure,
    "equality": equality.measure,
    "faults": faults.measure,
    "quickstart": quickstart.measure,
    "suite": suite.measure,
}
"""Name for BARS=name, and what measures it."""

REPEAT_WITHIN_MIN = 0
"""Nothing is repeated."""
