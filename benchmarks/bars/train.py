"""The bars of the training room."""

from benchmarks.bars import (
    train_check,
    train_equality,
    train_learning,
    train_quantized,
    train_resume,
    train_sharding,
    train_skew,
    train_start,
    train_throughput,
    train_workers,
)

MEASURES = {
    "throughput": train_throughput.measure,
    "skew": train_skew.measure,
    "workers": train_workers.measure,
    "nf4": train_quantized.measure,
    "start": train_start.measure,
    "packing": train_equality.measure_packing,
    "masks": train_equality.measure_masks,
    "resume": train_resume.measure,
    "sharding": train_sharding.measure,
    "check": train_check.measure,
    "learning": train_learning.measure,
}
"""Name for BARS=name, and what measures it."""

REPEAT_WITHIN_MIN = 60
"""The whole target ends within an hour: a repetition that would not is left out."""
