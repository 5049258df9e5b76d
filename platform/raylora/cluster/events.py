"""What a job says while it runs: one line `@raylora {json}` on stdout per event.

Standard library only, so that any process of a job may import it. Ray puts a prefix before a
worker's line, so a reader looks for the marker anywhere in the line.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

MARKER = "@raylora "


def _now() -> float:
    """Unix seconds, left out where two events are compared."""
    return field(default_factory=time.time, compare=False)


@dataclass(frozen=True)
class StageEvent:
    """The job enters a stage.

    start, workers, base, data, model, train, verify, evaluate, register, serve, batch or done.
    """

    stage: str
    detail: str = ""
    time: float = _now()
    """Unix seconds when it did."""


@dataclass(frozen=True)
class StepEvent:
    """One optimizer step is done (1-based)."""

    step: int
    total_steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    supervised_tokens_per_second: float
    memory_bytes: int
    """Of the worker that has most."""
    eta_seconds: float
    mfu: float = math.nan
    """Share of the workers' measured matrix peak that went into useful operations."""
    worker_memory_bytes: list[int] = field(default_factory=list[int])
    """By worker."""
    time: float = _now()


@dataclass(frozen=True)
class ValidationEvent:
    """Held-out rows were looked at during training; `best` where the loss is the lowest so far."""

    step: int
    loss: float
    metrics: dict[str, float]
    best: bool


@dataclass(frozen=True)
class NoticeEvent:
    """Something that does not stop the job is worth a word."""

    text: str


@dataclass(frozen=True)
class RestartEvent:
    """Workers were lost and started again; training continues after `resumed_step`."""

    attempt: int
    resumed_step: int


@dataclass(frozen=True)
class EvaluationEvent:
    """Scores of one subject, the base or an adapter; NaN where a metric is missing."""

    subject: str
    rows: int
    metrics: dict[str, float]
    dataset: str = ""
    """Empty for the held-out rows of a training."""
    unasked: int = 0
    """Rows that the model could not be asked."""
    intervals: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """95 % of each metric that is not missing: from, to."""


@dataclass(frozen=True)
class ComparisonEvent:
    """Two subjects on the same rows of a data set."""

    dataset: str
    metric: str
    subject: str
    against: str
    rows: int
    difference: float
    low: float
    high: float
    """95 % interval of the difference of means, subject - against."""
    wins: int
    losses: int
    ties: int
    regressions: int | None
    verdict: str
    forgetting: bool | None
    """Whether the base knew better; None where this is no check of that."""


@dataclass(frozen=True)
class ReportEvent:
    """An evaluation is written: its run, and the folder with its files."""

    run_id: str
    mlflow_run_id: str
    folder: str


@dataclass(frozen=True)
class ResultEvent:
    """The finished run. `adapter` is name@version, or None where nothing was registered."""

    run_id: str
    mlflow_run_id: str
    adapter: str | None
    aliases: list[str]
    adapter_dir: str


@dataclass(frozen=True)
class BatchEvent:
    """A batch is over: lines of its file by what they are."""

    output: str
    answers: int
    """Given now."""
    refused: int
    """Rows that could not be asked, from before as well."""
    resumed: int
    """Lines that were there before."""
    failed: int
    """Without a line: to be asked again."""
    tokens: int
    """Generated now."""
    seconds: float
    refusals: list[str] = field(default_factory=list[str])
    """The first rows that could not be asked now, with the reason."""


@dataclass(frozen=True)
class ErrorEvent:
    """What ended the job, where it knows: an error of raylora's own."""

    message: str
    hint: str | None


Event = (
    StageEvent
    | StepEvent
    | ValidationEvent
    | NoticeEvent
    | RestartEvent
    | EvaluationEvent
    | ComparisonEvent
    | ReportEvent
    | ResultEvent
    | BatchEvent
    | ErrorEvent
)

Tell = Callable[[Event], None]
"""Where events go: emit, or somebody who chooses among them."""

_KINDS: dict[str, type[Event]] = {
    "stage": StageEvent,
    "step": StepEvent,
    "validation": ValidationEvent,
    "notice": NoticeEvent,
    "restart": RestartEvent,
    "evaluation": EvaluationEvent,
    "comparison": ComparisonEvent,
    "report": ReportEvent,
    "result": ResultEvent,
    "batch": BatchEvent,
    "error": ErrorEvent,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def emit(event: Event) -> None:
    """Print the event's line at once: a buffered event is a display that stands still."""
    # Not print(): Ray Train replaces it in its workers by one that prints and logs, so that each
    # line comes twice. And one write, so that two threads cannot interleave within a line.
    sys.stdout.write(f"{MARKER}{json.dumps(as_dict(event))}\n")
    sys.stdout.flush()


def parse(line: str) -> Event | None:
    """Return the event a log line carries, or None where it carries none or a damaged one."""
    _, marker, text = line.partition(MARKER)
    if not marker:
        return None
    try:
        # raw_decode leaves what a terminal or Ray put behind the object (colour codes) alone.
        body, _ = json.JSONDecoder().raw_decode(text)
        return _from_dict(body)
    except (ValueError, TypeError, KeyError):
        return None


def is_over(log: str) -> bool:
    """Whether a piece of a log has a job's last event: its result, or why it has none."""
    return any(isinstance(parse(line), ResultEvent | ErrorEvent) for line in log.splitlines())


def as_dict(event: Event) -> dict[str, Any]:
    """Return the event as strict JSON: `event` names its kind, NaN and infinity become null."""
    body = {field.name: _strict(getattr(event, field.name)) for field in fields(event)}
    return {"event": _NAMES[type(event)], **body}


def _from_dict(body: dict[str, Any]) -> Event:
    kind = _KINDS[body["event"]]
    # A newer program may say more than this reader knows.
    known = {field.name: field.type for field in fields(kind) if field.name in body}
    return kind(**{name: _loose(body[name], known[name]) for name in known})


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    return value


def _loose(value: Any, declared: Any) -> Any:
    if declared is float:
        return math.nan if value is None else float(value)
    if isinstance(value, dict):
        return {key: math.nan if item is None else item for key, item in value.items()}
    return value
