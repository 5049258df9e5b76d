"""What users ask of a running sweep: looked for beside it, and answered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import ray

from raylora.config.sweep_rules import with_settings
from raylora.config.sweep_spec import Scheduler, SweepSpec
from raylora.errors import RayloraError, Unreachable
from raylora.sweeps.proposals import settings
from raylora.sweeps.proposer import Proposer
from raylora.sweeps.trials import Trials
from raylora.tracking.sweep_requests import Answer, CloneTrial, Request, answer, open_requests

PAUSE_S = 2.0
"""Between two looks: one small query."""

Act = Callable[[Request], str]
"""Does what is asked for and says what came of it. Raises RayloraError to refuse."""


@contextmanager
def listening(uri: str, mlflow_run_id: Callable[[], str], act: Act) -> Iterator[None]:
    """Within: requests to the sweep of this MLflow run are acted on, in a thread.

    mlflow_run_id gives nothing as long as the store does not know of the run.
    """
    over = Event()
    thread = Thread(target=_listen, args=(uri, mlflow_run_id, act, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _listen(uri: str, mlflow_run_id: Callable[[], str], act: Act, over: Event) -> None:
    while not over.wait(PAUSE_S):
        if not (known := mlflow_run_id()):
            continue
        try:
            for asked in open_requests(uri, known):
                answer(uri, known, asked.id, _reply(act, asked.request))
        except Unreachable:
            continue  # the store may be back at the next look


def _reply(act: Act, request: Request) -> Answer:
    try:
        return Answer(True, act(request))
    except RayloraError as error:
        return Answer(False, f"{error.message}; {error.hint}" if error.hint else error.message)


class Control:
    """Does what users ask for."""

    def __init__(self, spec: SweepSpec, proposer: Proposer, trials: Trials, mailbox: Any) -> None:
        self._spec = spec
        self._proposer = proposer
        self._trials = trials
        self._mailbox = mailbox

    def act(self, request: Request) -> str:
        """See Act."""
        if isinstance(request, CloneTrial):
            return self._clone(request)
        ray.get(self._mailbox.stop.remote(request.trial))
        return request.trial

    def _clone(self, wanted: CloneTrial) -> str:
        if self._spec.sweep.scheduler is Scheduler.PBT:
            raise RayloraError("a population has the trials that it began with")
        followers = settings(self._spec.sweep.space, dict(wanted.set))
        found = {**self._trials.settings(wanted.trial), **followers, **wanted.set}
        with_settings(self._spec.base, found)
        name = self._proposer.add(found, wanted.trial if wanted.warm else None)
        if name is None:
            raise RayloraError("all trials are over, the sweep is about to end")
        return name
