"""Sending what jobs have left on disk: their server was away to the end, or they were killed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from raylora.errors import RayloraError
from raylora.tracking.nearest import not_found
from raylora.tracking.run import RunStatus
from raylora.tracking.spooling.courier import LOCK
from raylora.tracking.spooling.records import Status
from raylora.tracking.spooling.spool import Role, SpoolWriter
from raylora.tracking.spooling.spooled import BIRTH, Birth, now_ms, read_birth
from raylora.tracking.spooling.tracked import delivery_of


@dataclass(frozen=True)
class Synced:
    """What was sent of a run."""

    run_id: str
    status: RunStatus | None
    """As the store has it now; None where its job still runs and sends it itself."""
    points: int
    """Metric points sent now."""
    adapter: str
    """The version that was registered, such as name@7; empty where none was."""
    thinned: int
    """Points that were left out over the whole run, since the disk was to hold no more."""
    lost: int
    refusals: tuple[str, ...]
    """What the store did not take, and why."""


def spools(outputs: Path) -> list[Path]:
    """The spools below an outputs folder; a sweep's before those of its trials."""
    return sorted(path.parent for path in outputs.glob(f"experiments/*/runs/*/tracking/{BIRTH}"))


def choose(outputs: Path, run_ids: tuple[str, ...]) -> list[Path]:
    """The spools of some runs. Raises NotFound with the nearest ids."""
    known = {folder.parent.name: folder for folder in spools(outputs)}
    for run_id in run_ids:
        if run_id not in known:
            raise not_found("run", run_id, known, f"below {outputs}")
    return [folder for run_id, folder in known.items() if run_id in run_ids]


def family(outputs: Path, run_id: str) -> list[Path]:
    """The spools of a run and of those shown below it, as a sweep's trials are."""
    return [
        folder
        for folder in spools(outputs)
        if (birth := read_birth(folder)) is not None and run_id in (birth.run_id, birth.parent)
    ]


def sync(folders: list[Path], uri: str | None = None) -> Iterator[Synced]:
    """Send all that waits in spools, and register their adapters; runs without news are left out.

    uri: of the store; where it is None, that of each run's birth. A run whose job was killed is
    KILLED from now on. Raises Unreachable, NotAuthorised.
    """
    for folder in folders:
        birth = read_birth(folder)
        if birth is None:
            continue
        try:
            with FileLock(folder / LOCK, blocking=False):
                found = _send(folder, birth, uri or birth.uri)
        except Timeout:
            found = Synced(birth.run_id, None, 0, "", 0, 0, ())
        if found is not None:
            yield found


def _send(folder: Path, birth: Birth, uri: str) -> Synced | None:
    delivery = delivery_of(folder, birth, uri, alive=False)
    before = delivery.state
    if delivery.over:
        return None
    while delivery.deliver():
        pass
    status = delivery.state.status
    if status is None or not status.terminal:
        # The lock is ours, so nobody writes it any more.
        writer = SpoolWriter(folder, Role.DRIVER)
        writer.append(Status(RunStatus.KILLED, now_ms()))
        writer.close()
        while delivery.deliver():
            pass
    delivery.tidy_up()
    state = delivery.state
    if not delivery.over:
        raise RayloraError(f"run {birth.run_id} is being written to")
    return Synced(
        birth.run_id,
        state.status,
        state.points - before.points,
        state.adapter,
        state.thinned,
        state.lost,
        tuple(state.refusals),
    )
