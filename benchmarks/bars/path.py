"""The bars of the path from a YAML to a served adapter."""

from benchmarks.bars import (
    path_config,
    path_equality,
    path_faults,
    path_quickstart,
    path_suite,
)

MEASURES = {
    "config": path_config.measure,
    "equality": path_equality.measure,
    "faults": path_faults.measure,
    "quickstart": path_quickstart.measure,
    "suite": path_suite.measure,
}
"""Name for BARS=name, and what measures it."""

REPEAT_WITHIN_MIN = 0
"""Nothing is repeated."""
