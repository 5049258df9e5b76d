"""Registers an adapter that no job of raylora trained: imported, or made of others."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raylora.config.places import new_run_id, run_dir
from raylora.config.train_spec import TrackingSpec
from raylora.errors import RayloraError
from raylora.tracking.adapters.reference import parse_name
from raylora.tracking.location import tracking_uri
from raylora.tracking.run import RunStatus
from raylora.tracking.spooling.tracked import start

EXPERIMENT = "adapters"
"""Of the runs that stand for what was not trained here."""


@dataclass(frozen=True)
class Adopted:
    """What became of an adapter."""

    run_id: str
    adapter: str | None
    """The version, such as name@1; None where the store was away: `raylora runs sync` makes it."""
    directory: Path
    """Its files in the run's folder."""
    missing: str
    """What the store does not have yet, in words."""


def adopt(
    tracking: TrackingSpec,
    outputs: str,
    name: str,
    directory: Path,
    *,
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> Adopted:
    """Make checked files the name's next version, with a run of their own that says how they came.

    They become no champion: that is for who has evaluated them. Raises NotAuthorised, and what the
    registry refuses them for.
    """
    parse_name(name)
    uri, run_id = tracking_uri(tracking, outputs), new_run_id()
    places = run_dir(Path(outputs).absolute(), EXPERIMENT, run_id)
    shutil.copytree(directory, places.adapter)
    run = start(uri, EXPERIMENT, run_id, name, places.tracking, params=params, tags=tags)
    try:
        away = run.wait_until_known()
    except RayloraError:
        shutil.rmtree(places.root)
        raise
    # One that is slow gets its time; one that does not answer has had it.
    limit_s = tracking.settle_seconds if away is None else 0.0
    status = RunStatus.FAILED
    try:
        made = run.register(name, places.adapter, tags, None, limit_s, champion=False)
        status = RunStatus.FINISHED
    finally:
        run.finish(status)
        missing = run.settle(limit_s)
    return Adopted(run_id, made.adapter if made else None, places.adapter, missing)
