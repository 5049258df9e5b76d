"""Rows that are longer than data.max_length: what is kept of them."""

from enum import StrEnum

from raylora.config.data_spec import DataSpec, Truncation
from raylora.jobs.data.examples import IGNORED, Example
from raylora.jobs.data.records import BadLine


class Fate(StrEnum):
    """What became of a row."""

    WHOLE = "whole"
    DROPPED = "dropped"
    CUT = "cut"
    SPLIT = "split"


def fit(example: Example, data: DataSpec) -> tuple[list[Example], Fate]:
    """Examples of at most data.max_length tokens, by data.truncation; those without labels stay.

    Raises BadLine where a longer row is an error.
    """
    size, limit = len(example), data.max_length
    if size <= limit:
        return [example], Fate.WHOLE
    match data.truncation:
        case Truncation.ERROR:
            raise BadLine(
                f"{size} tokens, {example.supervised_tokens} of them answers, are more than "
                f"data.max_length={limit}",
                f"shorten or drop the row, set data.max_length to {size} or more, or choose a "
                "data.truncation",
            )
        case Truncation.DROP:
            return [], Fate.DROPPED
        case Truncation.LEFT:
            return [_part(example, size - limit, size)], Fate.CUT
        case Truncation.RIGHT:
            return [_part(example, 0, limit)], Fate.CUT
        case Truncation.SPLIT:
            # A part begins with the token that the one before ends with: no label is lost.
            starts = range(0, size - 1, limit - 1)
            return [_part(example, start, start + limit) for start in starts], Fate.SPLIT


def _part(example: Example, start: int, stop: int) -> Example:
    labels = [IGNORED, *example.labels[start + 1 : stop]]
    weights = None if example.weights is None else example.weights[start:stop]
    return Example(example.input_ids[start:stop], labels, weights)
