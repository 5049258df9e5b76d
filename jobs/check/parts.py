"""The parts of the data that a spec names: each training source, and what is held out."""

from pathlib import Path
from typing import Final

from raylora.config.data_spec import DataSpec
from raylora.jobs.check.scan import Part
from raylora.jobs.data.conversation import Content
from raylora.jobs.data.partition import held_out_sources, is_held_out

TRAIN: Final = "train"
VALIDATION: Final = "validation"


def training(data: DataSpec) -> list[Part]:
    """Each training source, without the rows that are held out of it."""
    ratio = data.validation_ratio

    def has(row: Content) -> bool:
        return not is_held_out(row, ratio)

    return [Part(TRAIN, source, has if ratio else _any_row) for source in data.sources]


def held_out(data: DataSpec, base_dir: Path) -> list[Part]:
    """Held-out rows: a source of their own, or a share of each training source.

    Raises InvalidData where they are a split of a source that has none.
    """
    ratio = data.validation_ratio

    def has(row: Content) -> bool:
        return is_held_out(row, ratio)

    # Rows of a share that cannot be used are told of where they are trained on.
    return [
        Part(VALIDATION, source, has if ratio else _any_row, tells_faults=not ratio)
        for source in held_out_sources(data, base_dir)
    ]


def _any_row(content: Content) -> bool:
    return True
