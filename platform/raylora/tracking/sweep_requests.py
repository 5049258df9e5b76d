"""What commands ask of a running sweep: kept as tags of its run, which its driver looks at."""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias

from raylora.errors import RayloraError
from raylora.tracking.failures import raylora_errors
from raylora.tracking.run import RunStatus
from raylora.tracking.store import connect
from raylora.tracking.sweep_facts import SweepSummary
from raylora.tracking.sweep_tags import ANSWER, REQUEST
from raylora.tracking.sweeps import get_sweep

DONE, REFUSED = "done: ", "refused: "
"""How an answer begins."""


@dataclass(frozen=True)
class StopTrial:
    """End a trial where it stands; its adapter is kept."""

    do: ClassVar[str] = "stop"
    trial: str


@dataclass(frozen=True)
class CloneTrial:
    """Begin another trial with some of its settings changed."""

    do: ClassVar[str] = "clone"
    trial: str
    set: Mapping[str, Any]
    """By key of the TrainSpec."""
    warm: bool = False
    """Go on from the weights that the trial has now, instead of from new ones."""


Request: TypeAlias = StopTrial | CloneTrial
_KINDS: Mapping[str, type[Request]] = {kind.do: kind for kind in (StopTrial, CloneTrial)}


@dataclass(frozen=True)
class Asked:
    """A request, and where its answer will be."""

    id: str
    """Sorts by the time at which it was asked."""
    request: Request


@dataclass(frozen=True)
class Answer:
    """What the driver made of a request."""

    done: bool
    text: str
    """The new trial's name where one was asked for, or why the request was refused."""


def ask(uri: str, run_id: str, request: Request) -> Asked:
    """Leave a request for the driver of a sweep.

    Raises NotFound for an unknown sweep or trial, RayloraError where the sweep or, to be stopped,
    the trial is over.
    """
    details = get_sweep(uri, run_id)
    _still_runs(details.summary)
    trial = details.trial(request.trial)
    if isinstance(request, StopTrial) and trial.state.is_over:
        raise RayloraError(
            f"trial {trial.name} is {trial.state} already, after {trial.step} steps",
            hint=f"raylora trials list {run_id}",
        )
    asked = Asked(f"{time.time_ns():020}-{secrets.token_hex(2)}", request)
    body = json.dumps({"do": request.do, **asdict(request)})
    _set_tag(uri, details.summary.mlflow_run_id, REQUEST + asked.id, body)
    return asked


def open_requests(uri: str, mlflow_run_id: str) -> list[Asked]:
    """The requests to a sweep, by MLflow's id of its run, that have no answer; the oldest first.

    Raises Unreachable, NotAuthorised.
    """
    tags = _tags(uri, mlflow_run_id)
    ids = sorted(key.removeprefix(REQUEST) for key in tags if key.startswith(REQUEST))
    asked = ((id, _request(tags[REQUEST + id])) for id in ids if ANSWER + id not in tags)
    return [Asked(id, request) for id, request in asked if request is not None]


def answer(uri: str, mlflow_run_id: str, request_id: str, reply: Answer) -> None:
    """What the driver made of a request. Raises Unreachable, NotAuthorised."""
    text = (DONE if reply.done else REFUSED) + reply.text
    _set_tag(uri, mlflow_run_id, ANSWER + request_id, text)


def answer_to(uri: str, mlflow_run_id: str, request_id: str) -> Answer | None:
    """The driver's answer; None where there is none yet. Raises Unreachable, NotAuthorised."""
    text = _tags(uri, mlflow_run_id).get(ANSWER + request_id)
    if text is None:
        return None
    return Answer(text.startswith(DONE), text.removeprefix(DONE).removeprefix(REFUSED))


def _still_runs(sweep: SweepSummary) -> None:
    if not sweep.status.terminal:
        return
    finished = sweep.status is RunStatus.FINISHED
    raise RayloraError(
        f"sweep {sweep.run_id} is over ({sweep.status}): nothing runs that could do it",
        hint=f"raylora sweeps {'report' if finished else 'resume'} {sweep.run_id}",
    )


def _request(stored: str) -> Request | None:
    """None for what is no request: tags can be edited by hand, and that must not end a sweep."""
    try:
        body: dict[str, Any] = json.loads(stored)
        return _KINDS[body.pop("do")](**body)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _tags(uri: str, mlflow_run_id: str) -> dict[str, str]:
    client = connect(uri)
    with raylora_errors(uri):
        return dict(client.get_run(mlflow_run_id).data.tags)


def _set_tag(uri: str, mlflow_run_id: str, key: str, value: str) -> None:
    client = connect(uri)
    with raylora_errors(uri):
        client.set_tag(mlflow_run_id, key, value)
