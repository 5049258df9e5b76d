"""What is left out of a spool that has grown too long: policy, in plain Python.

Old points go first, and evenly: the file with the most bytes, the oldest of equals, gives up every
second point of each metric that has many in it. Everything that is no metric stays.
"""

from collections import Counter
from collections.abc import Sequence

from raylora.tracking.spooling.records import Metrics, Record

LIMIT_BYTES = 64 << 20
"""On disk and not sent, for one run: about 250,000 steps of seven metrics."""
KEPT_POINTS = 64
"""Of each metric in a file: one that has no more, such as a validation loss, keeps them."""


def to_thin(sizes: Sequence[int], limit: int) -> int | None:
    """Which of the files, the oldest first, is to be thinned; None where they are within limit."""
    if not sizes or sum(sizes) <= limit:
        return None
    return max(range(len(sizes)), key=lambda index: (sizes[index], -index))


def thinned(records: Sequence[Record]) -> tuple[list[Record], int]:
    """The records with every second point of frequent metrics left out; how many points were.

    The first and the last point of a metric stay.
    """
    totals = Counter(key for record in records for key in _values(record))
    seen: Counter[str] = Counter()
    kept: list[Record] = []
    dropped = 0
    for record in records:
        if not isinstance(record, Metrics):
            kept.append(record)
            continue
        values: dict[str, float] = {}
        for key, value in record.values.items():
            index, total = seen[key], totals[key]
            seen[key] += 1
            if total <= KEPT_POINTS or index % 2 == 0 or index == total - 1:
                values[key] = value
            else:
                dropped += 1
        if values:
            kept.append(Metrics(values, record.step, record.time_ms))
    return kept, dropped


def _values(record: Record) -> Sequence[str]:
    return list(record.values) if isinstance(record, Metrics) else ()
