"""Registers an adapter that no job of raylora trained: imported, or made of others."""

from collections.abc import Mapping
from pathlib import Path

from raylora.config.places import new_run_id
from raylora.tracking.adapters.reference import parse_name
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.adapters.version import Version
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import open_run

EXPERIMENT = "adapters"
"""Of the runs that stand for what was not trained here."""


def adopt(
    registry: Registry,
    name: str,
    directory: Path,
    *,
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> Version:
    """Make checked files the name's next version, with a run of their own that says how they came.

    Raises InvalidConfig, Unreachable, NotAuthorised.
    """
    parse_name(name)
    run = open_run(registry.uri, EXPERIMENT, new_run_id(), name, params=params, tags=tags)
    status = RunStatus.FAILED
    try:
        version = registry.register(name, run, directory, tags=tags)
        status = RunStatus.FINISHED
    finally:
        run.finish(status)
    return version
