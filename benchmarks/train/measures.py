"""The bars of the training room."""

from benchmarks.train import (
    check,
    equality,
    learning,
    quantized,
    resume,
    sharding,
    skew,
    start,
    throughput,
    workers,
)

MEASURES = {
    "throughput": throughput.measure,
    "skew": skew.measure,
    "workers": workers.measure,
    "nf4": quantized.measure,
    "start": start.measure,
    "packing": equality.measure_packing,
    "masks": equality.measure_masks,
    "resume": resume.measure,
    "sharding": sharding.measure,
    "check": check.measure,
    "learning": learning.measure,
}
"""Name for BARS=name, and what measures it."""

REPEAT_WITHIN_MIN = 60
"""The whole target ends within an hour: a repetition that would not is left out."""
