"""The driver's run: begun whether or not the tracking server is there, and sent by a thread."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from raylora.config.credentials import shown
from raylora.errors import NotFound, RayloraError, Unreachable
from raylora.tracking.adapters.version import directory_digest
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import find_or_make, find_stored
from raylora.tracking.spooling.courier import Courier, courier_of
from raylora.tracking.spooling.delivery import Delivery
from raylora.tracking.spooling.records import Registered, Registration, Status
from raylora.tracking.spooling.spool import Role
from raylora.tracking.spooling.spooled import BIRTH, Birth, SpooledRun, now_ms, read_birth
from raylora.tracking.spooling.stored import Stored
from raylora.tracking.spooling.thinning import LIMIT_BYTES
from raylora.tracking.store import connect

OPEN_SECONDS = 10.0
"""A job waits so long for a slow server to know of its run, and then goes on without."""


class TrackedRun(SpooledRun):
    """The driver's, whose process sends the spool."""

    def __init__(
        self, folder: Path, birth: Birth, make: Callable[[], Delivery], courier: Courier
    ) -> None:
        """`make` gives what sends the spool."""
        super().__init__(folder, birth.run_id, birth.began_ms, Role.DRIVER)
        self._folder = folder
        self._make = make
        self._courier = courier
        self._delivery: Delivery | None = None

    @property
    def mlflow_run_id(self) -> str:
        """Empty until the store has been reached."""
        return self._sent.state.mlflow_run_id

    def begin(self, params: Mapping[str, object], tags: Mapping[str, object]) -> None:
        """It runs from now on, and is sent."""
        self._append(Status(RunStatus.RUNNING, now_ms()))
        self.log_params(params)
        self.set_tags(tags)
        self._delivery = self._courier.add(self._folder, self._make)

    def known_within(self, seconds: float) -> bool:
        """Whether the store knows of the run; waited for unless it is clear that it is away."""
        delivery, courier = self._sent, self._courier
        courier.wait(
            lambda: bool(self.mlflow_run_id or courier.error or delivery.failure), seconds
        )
        return bool(self.mlflow_run_id)

    def wait_until_known(self) -> RayloraError | None:
        """Have the store know of the run, if it can be done in OPEN_SECONDS; why not.

        Raises NotAuthorised, and what is wrong with the experiment: time does not mend them.
        """
        delivery, courier = self._sent, self._courier
        self.known_within(OPEN_SECONDS)
        fatal = delivery.failure or courier.error
        if fatal is not None and not isinstance(fatal, Unreachable):
            courier.withdraw(delivery)
            if not self.mlflow_run_id:
                shutil.rmtree(self._folder, ignore_errors=True)  # it never was
            raise fatal
        return courier.error

    def register(
        self,
        name: str,
        adapter_dir: Path,
        tags: Mapping[str, str],
        alias: str | None,
        limit_s: float,
        *,
        champion: bool = True,
        parent_tag: str = "",
    ) -> Registered | None:
        """Make a directory the next version of a name, once all before it is sent.

        alias: moved to it. champion: it becomes that of a name that has none. parent_tag: of the
        run above, names the version. None where the store was away for limit_s: `raylora runs
        sync` makes it a version later. Raises what the registry refuses it for.
        """
        delivery = self._sent
        delivery.refused = None
        digest = directory_digest(adapter_dir)
        directory = self._relative(adapter_dir)
        self._append(
            Registration(name, directory, digest, dict(tags), alias, champion, parent_tag)
        )
        stored = self._courier.wait(lambda: not delivery.waiting, limit_s)
        if delivery.refused is not None:
            raise delivery.refused
        state = delivery.state
        made = Registered(state.adapter, tuple(state.aliases), tuple(state.notices))
        return made if stored else None

    def settle(self, limit_s: float) -> str:
        """Wait until all that this process logged is stored; otherwise what is missing, in words.

        Of this run and of all others whose spools are sent beside it.
        """
        self._courier.wait(lambda: not self._courier.waiting, limit_s)
        left = self._courier.waiting
        if not left:
            state = self._sent.state
            return f"{state.lost} metric points were lost: {state.refusals}" if state.lost else ""
        reason = f": {self._courier.error.message}" if self._courier.error else ""
        return f"{len(left)} runs wait to be sent to the tracking server{reason}"

    @property
    def _sent(self) -> Delivery:
        assert self._delivery is not None, "it has begun"
        return self._delivery


def start(
    uri: str,
    experiment: str,
    run_id: str,
    name: str,
    folder: Path,
    *,
    params: Mapping[str, object],
    tags: Mapping[str, str],
    parent: str = "",
) -> TrackedRun:
    """Begin a run whose spool is in `folder`, or go on with it; the store need not be there.

    parent: raylora's id of the run that it is shown below.
    """
    birth = read_birth(folder)
    if birth is None:
        birth = Birth(shown(uri), experiment, run_id, name, parent, now_ms())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BIRTH).write_text(json.dumps(asdict(birth)), encoding="utf-8")
    born = birth
    run = TrackedRun(folder, born, lambda: delivery_of(folder, born, uri), courier_of(uri))
    run.begin(params, tags)
    return run


def delivery_of(folder: Path, birth: Birth, uri: str, *, alive: bool = True) -> Delivery:
    """What sends a spool to the store at `uri`; alive: the run's job may run."""
    return Delivery(folder, lambda known: _open(birth, uri, known), LIMIT_BYTES, alive=alive)


def _open(birth: Birth, uri: str, known: str) -> Stored:
    client = connect(uri, patient=True)
    if known:
        with suppress(NotFound):
            return find_stored(client, known)
    return find_or_make(
        client,
        birth.experiment,
        birth.run_id,
        birth.name,
        began_ms=birth.began_ms,
        parent=birth.parent,
    )
