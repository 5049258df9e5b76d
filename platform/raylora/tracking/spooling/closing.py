"""The end of a job that was stopped, as whoever stopped it tells the store: its runs are KILLED.

A driver says so itself, if it has the time. What it did not say is said through its spool, where
that can be read, so that there is never a second writer. Where it cannot, the store is told; who
sends the spool later sends its end again, and not that the run begins.
"""

from collections.abc import Sequence
from pathlib import Path

from raylora.errors import NotFound, RayloraError
from raylora.tracking.runs import kill_run
from raylora.tracking.spooling.spooled import read_birth
from raylora.tracking.spooling.sync import family, sync
from raylora.tracking.spooling.tracked import delivery_of
from raylora.tracking.store import connect


def close(outputs: Path, run_id: str, uri: str) -> None:
    """Have the store know that a run and those below it are over; their job is, for sure.

    uri: of the store, for outputs that are on another machine; empty where it is in them. Raises
    NotFound where neither can be reached from here, Unreachable within seconds, NotAuthorised.
    """
    folders = family(outputs, run_id)
    if folders:
        _close_spools(folders)
    elif uri:
        kill_run(uri, run_id)
    elif not outputs.is_dir():
        raise NotFound(f"there is no folder {outputs} on this machine")


def _close_spools(folders: Sequence[Path]) -> None:
    for folder in folders:
        birth = read_birth(folder)
        if birth is None or delivery_of(folder, birth, birth.uri, alive=False).over:
            continue
        connect(birth.uri)  # a dead server is noticed by that in seconds
        if any(sent.status is None for sent in sync([folder])):
            raise RayloraError(f"run {birth.run_id} is still being sent by its job")
