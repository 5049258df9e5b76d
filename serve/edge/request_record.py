"""What became of one request: filled in on its way, read by the access log and the metrics."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import Scope

from raylora.config.key_file import ApiKey
from raylora.serve.http.api_errors import CLIENT_CLOSED_REQUEST, ApiError
from raylora.serve.http.headers import header
from raylora.serve.ids import new_id

if TYPE_CHECKING:
    from raylora.engine.request import Event  # loads torch, which the ingress has not

ID = b"x-request-id"
"""Ray's proxies send one along and answer with it; without a proxy this endpoint does."""
GENERATION = frozenset({"/v1/chat/completions", "/v1/completions"})
_STATE = "raylora_record"
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass
class RowTimes:
    """When one answer's text began and ended, in seconds since the request came."""

    first_s: float
    last_s: float
    begun_s: float | None = None
    """When the engine took its prompt in; None where it does not say."""
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
    has_own_id: bool = False
    """Whether the id is none that the client, or who is before us, has sent."""
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

    @property
    def queue_s(self) -> float | None:
        """Until the engine began with the first prompt; None where it does not say."""
        begun = (row.begun_s for row in self.rows.values() if row.begun_s is not None)
        return min(begun, default=None)

    @property
    def timings(self) -> dict[str, float | None]:
        """What became of the request's time, in llama.cpp's names; of all its answers together."""
        first_s, queue_s = self.first_token_s or 0.0, self.queue_s
        generating_s = max((row.last_s for row in self.rows.values()), default=0.0) - first_s
        later = self.completion_tokens - len(self.rows)
        return {
            "queue_ms": _ms(queue_s),
            "prompt_n": self.prompt_tokens,
            "prompt_ms": _ms(first_s - (queue_s or 0.0)),
            "predicted_n": self.completion_tokens,
            "predicted_ms": _ms(generating_s),
            "predicted_per_second": round(later / generating_s, 3) if generating_s else None,
        }

    def saw(self, index: int, event: "Event") -> None:
        """An answer has grown or ended."""
        now = self.clock() - self._started
        row = self.rows.setdefault(index, RowTimes(now, now))
        row.last_s = now
        row.events += 1
        done = event.completion
        if done is not None:
            row.tokens = len(done.token_ids)
            row.begun_s = None if done.begun is None else done.begun - self._started
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
    """The record of a request that has just come in; routes find it by `record_of`.

    Whoever answers behind it finds the record's id in the request's headers.
    """
    given = header(scope, ID)
    name = given.decode("latin-1")
    if not _SANE_ID.fullmatch(name):
        name = new_id()
        others = (
            [pair for pair in scope["headers"] if pair[0] != ID] if given else scope["headers"]
        )
        scope["headers"] = [*others, (ID, name.encode())]
    record = RequestRecord(name, scope["method"], scope["path"])
    record.has_own_id = name.encode() != given
    scope.setdefault("state", {})[_STATE] = record
    return record


def record_in(scope: Scope) -> RequestRecord:
    """The record of a request on its way."""
    return scope["state"][_STATE]


def record_of(request: Request) -> RequestRecord:
    """The same, for routes."""
    return record_in(request.scope)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)
