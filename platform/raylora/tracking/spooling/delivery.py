"""What is in a run's spool, brought to the store: in order, each record once, whatever is killed.

How far it is stands in a file that is replaced after each request. Killed between the two, it asks
the store for the last step of each metric and leaves out what is there: requests are taken as a
whole or not at all, and the steps of a metric only go forward. All other records may come twice.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from raylora.errors import NotAuthorised, NotFound, RayloraError, Unreachable
from raylora.tracking.mlflow_run import Point
from raylora.tracking.spooling import thinning
from raylora.tracking.spooling.batches import Batch, batch_of, next_batch
from raylora.tracking.spooling.records import (
    Artifacts,
    Content,
    DatasetUsed,
    Lost,
    Metrics,
    Params,
    Record,
    Registration,
    Status,
    Tags,
    encode,
)
from raylora.tracking.spooling.spool import Segment, is_closed, read, segments
from raylora.tracking.spooling.spool_state import State, read_state, replace_file, write_state
from raylora.tracking.spooling.stored import Open, Stored

log = logging.getLogger(__name__)

LOST_TAG = "raylora.lost_points"
THINNED_TAG = "raylora.thinned_points"


class Delivery:
    """Sends one run's spool. One process at a time does: the courier holds a lock."""

    def __init__(
        self, folder: Path, open_stored: Open, limit_bytes: int, *, alive: bool = True
    ) -> None:
        """`folder` is the spool's, in the run's own.

        alive: its job may run. If not, nothing that it once said sets the run to RUNNING again.
        """
        self.folder = folder
        self.state = read_state(folder)
        self.refused: RayloraError | None = None
        """Why the store did not register the adapter."""
        self.failure: Exception | None = None
        """Why no more of it is sent, such as an experiment that was deleted."""
        self._open = open_stored
        self._stored: Stored | None = None
        self._limit = limit_bytes
        self._alive = alive

    @property
    def waiting(self) -> bool:
        """Whether there is anything to send."""
        return self._next() is not None

    @property
    def over(self) -> bool:
        """Whether the run has ended and all of it is stored."""
        status = self.state.status
        return status is not None and status.terminal and not self.waiting

    def reload(self) -> None:
        """Begin where another process has left off."""
        self.state = read_state(self.folder)
        self._stored = None

    def open(self) -> None:
        """Find or make the run in the store. Raises what `Open` does."""
        if self._stored is None:
            self._stored = self._open(self.state.mlflow_run_id)
            self._keep(replace(self.state, mlflow_run_id=self._stored.mlflow_run_id))

    def deliver(self) -> bool:
        """Send the next records; False where there are none.

        Raises Unreachable and NotAuthorised: then nothing has changed, and it is worth asking
        again. What the store refuses is counted, and left out.
        """
        batch = self._next()
        if batch is None:
            return False
        self.open()
        self._send(batch)
        sent = {**self.state.offsets, batch.segment.name: batch.end}
        self._keep(replace(self.state, offsets=sent, lost=self.state.lost + batch.damaged))
        self._tidy(batch.segment)
        return True

    def keep_within_limit(self) -> None:
        """Thin what waits, where the disk holds more of it than it may."""
        while True:
            whole = segments(self.folder)
            waiting = [s for s in whole if s.bytes > self._offset(s)]
            total = sum(s.bytes - self._offset(s) for s in waiting)
            closed = [s for s in waiting if not self._offset(s) and is_closed(s, whole)]
            spare = self._limit - total + sum(s.bytes for s in closed)
            chosen = thinning.to_thin([s.bytes for s in closed], spare)
            if chosen is None or not self._thin(closed[chosen]):
                return

    def tidy_up(self) -> None:
        """Delete what was sent of a run that is over, but for the account of it."""
        for segment in segments(self.folder):
            # Nothing sent of it: a job that goes on with the run may have begun it just now.
            if self._offset(segment) and self._sent_all(segment):
                segment.path.unlink(missing_ok=True)

    def _next(self) -> Batch | None:
        return next_batch(self.folder, self.state.offsets)

    def _sent_all(self, segment: Segment) -> bool:
        return batch_of(segment, self._offset(segment)) is None

    def _offset(self, segment: Segment) -> int:
        return self.state.offsets.get(segment.name, 0)

    def _send(self, batch: Batch) -> None:
        assert self._stored is not None
        try:
            if batch.records and not isinstance(batch.records[0], Metrics):
                self._send_other(self._stored, batch.records[0])
            else:
                points = [point for record in batch.records for point in _points(record)]
                self._send_points(self._stored, points)
                self.state = replace(self.state, points=self.state.points + len(points))
        except NotFound as error:
            # A store that was made anew: the run is begun there again.
            self._stored = None
            raise Unreachable(f"the run is gone: {error.message}") from error

    def _send_points(self, stored: Stored, points: Sequence[Point]) -> None:
        """Halve what is refused, until only the points at fault are left out."""
        try:
            stored.send(points)
        except (Unreachable, NotAuthorised, NotFound):
            raise
        except RayloraError as error:
            if len(points) > 1:
                half = len(points) // 2
                self._send_points(stored, points[:half])
                self._send_points(stored, points[half:])
            else:
                self._refuse(error, points=1)

    def _send_other(self, stored: Stored, record: Record) -> None:
        try:
            self._apply(stored, record)
        except (Unreachable, NotAuthorised):
            raise
        except OSError as error:
            self._refuse(RayloraError(f"a file that was logged cannot be read: {error}"), points=0)
        except RayloraError as error:
            if isinstance(record, Registration):
                self.refused = error
            elif isinstance(error, NotFound):
                raise
            self._refuse(error, points=0)

    def _apply(self, stored: Stored, record: Record) -> None:
        root = self.folder.parent
        match record:
            case Params(values):
                stored.log_params(values)
            case Tags(values):
                stored.set_tags(values)
            case Content(content, file):
                stored.log_dict(content, file)
            case Artifacts(directory, path):
                stored.log_artifacts(root / directory, path)
            case DatasetUsed():
                stored.log_dataset(**asdict(record))
            case Registration():
                made = stored.register(record, root / record.directory)
                self.state = replace(self.state, **made._asdict())
            case Lost(points):
                self.state = replace(self.state, lost=self.state.lost + points)
            case Status(status, time_ms):
                self._tell_of_gaps(stored)
                if status.terminal or self._alive:
                    stored.stand(status, time_ms)
                if status.terminal:
                    stored.discard_doubles()
                self.state = replace(self.state, status=status)
            case Metrics():
                raise AssertionError("metrics go in batches")

    def _tell_of_gaps(self, stored: Stored) -> None:
        counts = {LOST_TAG: self.state.lost, THINNED_TAG: self.state.thinned}
        if any(counts.values()):
            stored.set_tags({tag: count for tag, count in counts.items() if count})

    def _refuse(self, error: RayloraError, points: int) -> None:
        reasons = dict.fromkeys([*self.state.refusals, error.message])
        if len(reasons) > len(self.state.refusals):
            log.warning("the tracking store refuses what was logged: %s", error.message)
        lost = self.state.lost + points
        self.state = replace(self.state, lost=lost, refusals=tuple(reasons))

    def _tidy(self, segment: Segment) -> None:
        if self._sent_all(segment) and is_closed(segment, segments(self.folder)):
            segment.path.unlink(missing_ok=True)
            offsets = {k: v for k, v in self.state.offsets.items() if k != segment.name}
            self._keep(replace(self.state, offsets=offsets))

    def _thin(self, segment: Segment) -> bool:
        kept, dropped = thinning.thinned([r for r, _ in read(segment, 0) if r is not None])
        if dropped:
            self._keep(replace(self.state, thinned=self.state.thinned + dropped))
            replace_file(segment.path, b"".join(map(encode, kept)))
        return dropped > 0

    def _keep(self, state: State) -> None:
        self.state = state
        write_state(self.folder, state)


def _points(record: Record) -> Iterator[Point]:
    if isinstance(record, Metrics):
        for key, value in record.values.items():
            yield Point(key, float(value), record.time_ms, record.step)
