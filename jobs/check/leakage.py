"""Held-out rows that the training rows have too: what is scored on them was learnt by heart."""

from dataclasses import dataclass

from raylora.jobs.check.duplicates import Shared, shared
from raylora.jobs.check.near_duplicates import across
from raylora.jobs.check.scan import Scan
from raylora.jobs.check.source_report import NearDuplicates, near_report, signatures


@dataclass(frozen=True)
class Leakage:
    """Held-out rows that a training source has."""

    heldout: str
    """The source they are held out in."""
    train: str
    """The training source."""
    heldout_rows: int
    rows: Shared
    """Equal as a whole."""
    prompts: Shared
    """Equal up to the last answer."""
    near: NearDuplicates


def leakage(heldout: Scan, train: Scan) -> Leakage:
    """What a training source has of the held-out rows."""
    texts, others = list(heldout.texts), list(train.texts)
    near = across(signatures(texts), signatures(others))
    return Leakage(
        heldout.part.source.source,
        train.part.source.source,
        heldout.good,
        shared(heldout.keys, train.keys),
        shared(heldout.prompts, train.prompts),
        near_report(near, texts, others, is_all=_is_all(heldout) and _is_all(train)),
    )


def _is_all(found: Scan) -> bool:
    return len(found.texts) == found.good
