"""What became of one request: filled in on its way, read by the access log and the metrics."""

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import Scope

from raylora.config.key_file import ApiKey
from raylora.serve.http.api_errors import CLIENT_CLOSED_REQUEST, ApiError

if TYPE_CHECKING:
    from raylora.engine.request import Event  # loads torch, which the ingress has not

REQUEST_ID = "x-request-id"
"""Ray's proxies send one along and answer with it; without a proxy this endpoint does."""
GENERATION = frozenset({"/v1/chat/completions", "/v1/completions"})
_STATE = "raylora_record"
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass
class RowTimes:
    """When one answer's text began and ended, in seconds since the request came."""

    first_s: float
    last_s: float
    events: int = 0
    tokens: int | None = None
    """Generated; known when the answer has ended."""

    @property
    def token_s(self) -> float | None:
        """Seconds for each token after the first; None for fewer than two."""
        if self.tokens is None or self.tokens < 2:
            return None
        return (self.last_s - self.first_s) / (self.tokens - 1)


@dataclass
class RequestRecord:
    """One HTTP request."""

    id: str
    method: str
    path: str
    came: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: Callable[[], float] = time.monotonic
    key: ApiKey | None = None
    """None where none was known."""
    model: str | None = None
    """As asked."""
    answered_by: str | None = None
    """name@version or the base's name."""
    streamed: bool = False
    sent_status: int | None = None
    refused: bool = False
    """At the door: no route has seen it."""
    failed_status: int | None = None
    """Of what ended the answer after its first byte had been sent."""
    answers: int = 1
    """To each prompt."""
    prompt_tokens: int = 0
    rows: dict[int, RowTimes] = field(default_factory=dict[int, RowTimes])
    finish_reasons: list[str] = field(default_factory=list[str])
    total_s: float = 0.0
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def generates(self) -> bool:
        """Whether a model was to answer."""
        return self.path in GENERATION

    @property
    def status(self) -> int:
        """What the request came to, even where the client had been sent 200 before it broke."""
        if self.failed_status is not None:
            return self.failed_status
        if self.rows and any(row.tokens is None for row in self.rows.values()):
            return CLIENT_CLOSED_REQUEST
        return self.sent_status or 500

    @property
    def completion_tokens(self) -> int:
        """Generated; of an answer that was broken off, as many as had been told of."""
        return sum(row.events if row.tokens is None else row.tokens for row in self.rows.values())

    @property
    def first_token_s(self) -> float | None:
        """Until the first text."""
        return min((row.first_s for row in self.rows.values()), default=None)

    def saw(self, index: int, event: "Event") -> None:
        """An answer has grown or ended."""
        now = self.clock() - self._started
        row = self.rows.setdefault(index, RowTimes(now, now))
        row.last_s = now
        row.events += 1
        done = event.completion
        if done is not None:
            row.tokens = len(done.token_ids)
            self.finish_reasons.append(done.finish_reason.value)
            # A prompt counts once, however many answers it has.
            if index % self.answers == 0:
                self.prompt_tokens += done.prompt_tokens

    def broke(self, error: ApiError) -> None:
        """The answer ends with an error."""
        self.failed_status = error.status_code

    def end(self) -> None:
        """The response is over."""
        self.total_s = self.clock() - self._started


def begin(scope: Scope) -> RequestRecord:
    """The record of a request that has just come in; routes find it by `record_of`."""
    given = dict(scope["headers"]).get(REQUEST_ID.encode(), b"").decode("latin-1")
    name = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
    record = RequestRecord(name, scope["method"], scope["path"])
    scope.setdefault("state", {})[_STATE] = record
    return record


def record_in(scope: Scope) -> RequestRecord:
    """The record of a request on its way."""
    return scope["state"][_STATE]


def record_of(request: Request) -> RequestRecord:
    """The same, for routes."""
    return record_in(request.scope)
