"""Follow a job: a display for people, plain lines for files, JSON lines for programs."""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import click
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raylora.cli.output import MISSING, chatter_console, note
from raylora.cluster import events
from raylora.cluster.events import (
    BatchEvent,
    ComparisonEvent,
    EvaluationEvent,
    Event,
    NoticeEvent,
    ReportEvent,
    RestartEvent,
    ResultEvent,
    StageEvent,
    StepEvent,
    ValidationEvent,
)
from raylora.cluster.job_info import JobInfo
from raylora.cluster.jobs import JobClient
from raylora.config.metric import lower_is_better

TAIL_LINES = 20
"""Lines of the log that are shown where a job fails."""


@dataclass
class Progress:
    """Where a job is, and what it has said so far."""

    stage: str = "starting"
    detail: str = ""
    step: StepEvent | None = None
    restarts: int = 0
    validation: ValidationEvent | None = None
    """The latest."""
    evaluations: list[EvaluationEvent] = field(default_factory=list[EvaluationEvent])
    comparisons: list[ComparisonEvent] = field(default_factory=list[ComparisonEvent])
    report: ReportEvent | None = None
    result: ResultEvent | None = None
    batch: BatchEvent | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict[str, float])
    """Finished stages in their order."""
    tail: deque[str] = field(default_factory=lambda: deque[str](maxlen=TAIL_LINES))
    _since: float = field(default_factory=time.time)

    def see(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case StageEvent(stage, detail, at):
                self.close_stage(at)
                self.stage, self.detail = stage, detail
            case StepEvent():
                self.step = event
            case ValidationEvent():
                self.validation = event
            case NoticeEvent():
                pass
            case RestartEvent(attempt):
                self.restarts = attempt
            case EvaluationEvent():
                self.evaluations.append(event)
            case ComparisonEvent():
                self.comparisons.append(event)
            case ReportEvent():
                self.report = event
            case ResultEvent():
                self.result = event
            case BatchEvent():
                self.batch = event

    def close_stage(self, at: float) -> None:
        """The current stage ends at this time, by the clock of the machine that says so."""
        spent = self.stage_seconds.get(self.stage, 0.0)
        # Clocks of two machines may differ by more than the first stage took.
        self.stage_seconds[self.stage] = spent + max(0.0, at - self._since)
        self._since = at


@dataclass(frozen=True)
class Outcome:
    """A job that has ended."""

    job: JobInfo
    progress: Progress


def follow(client: JobClient, job_id: str, output: str) -> Outcome:
    """Show a job until it ends.

    Ctrl-C leaves the job alone, says how to come back to it and how to stop it, and is raised on.
    """
    progress = Progress()
    try:
        with _display(output, progress) as display:
            _show(client.follow(job_id), display, progress)
    except KeyboardInterrupt:
        note(f"\njob {job_id} goes on without this display")
        note(f"  come back:  raylora jobs logs -f {job_id}")
        note(f"  stop it:    raylora jobs stop {job_id}")
        raise
    return Outcome(client.status(job_id), progress)


def plain(event: Event) -> str:
    """An event as one line for people."""
    match event:
        case StageEvent(stage, detail):
            return f"{stage}: {detail}" if detail else stage
        case StepEvent():
            return f"step {event.step}/{event.total_steps}  {_figures(event)}"
        case ValidationEvent(step, loss, metrics, best):
            said = f"validation after step {step}: loss {loss:.4f}{_scores(metrics)}"
            return f"{said}  (best so far)" if best else said
        case NoticeEvent(text):
            return text
        case RestartEvent(attempt, resumed_step):
            return f"workers restarted (restart {attempt}), going on after step {resumed_step}"
        case EvaluationEvent(subject, rows, metrics, dataset):
            where = f" of {dataset}" if dataset else ""
            return f"{subject} on {rows} rows{where}: {_scores(metrics).strip()}"
        case ComparisonEvent():
            return (
                f"{event.subject} against {event.against} on {event.dataset}: {event.metric} "
                f"{event.difference:+.4g} ({event.low:+.4g} to {event.high:+.4g}), {event.verdict}"
            )
        case ReportEvent():
            return f"written to {event.folder}"
        case ResultEvent():
            return f"{event.adapter or 'no adapter registered'}  {event.adapter_dir}"
        case BatchEvent():
            return f"{event.answers} answers and {event.refused} refused rows in {event.output}"


class _Display(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def event(self, event: Event) -> None: ...


def _display(output: str, progress: Progress) -> _Display:
    if output == "json":
        return _JsonLines()
    return _Panel(progress) if sys.stderr.isatty() else _PlainLines()


def _show(lines: Iterable[str], display: _Display, progress: Progress) -> None:
    for line in lines:
        event = events.parse(line)
        if event is None:
            progress.tail.append(line)
            continue
        progress.see(event)
        display.event(event)
    progress.close_stage(time.time())


class _Silent:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class _JsonLines(_Silent):
    """One JSON object a line on stdout."""

    def event(self, event: Event) -> None:
        click.echo(json.dumps(events.as_dict(event)))


class _PlainLines(_Silent):
    """One line an event on stderr."""

    def event(self, event: Event) -> None:
        note(plain(event))


class _Panel:
    """A moving display on the terminal's stderr; what is finished scrolls up above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._started = time.monotonic()
        self._live = Live(
            console=chatter_console(),
            get_renderable=self._render,
            refresh_per_second=4,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def event(self, event: Event) -> None:
        if not isinstance(event, StepEvent):
            self._live.console.print(Text(plain(event)), soft_wrap=True)

    def _render(self) -> Group:
        step = self._progress.step
        elapsed = _clock(time.monotonic() - self._started)
        headline = Text(f"{self._progress.stage}  {elapsed}", style="bold")
        if step is None or self._progress.stage != "train":
            return Group(headline)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=step.total_steps, completed=step.step, width=40),
            Text(f"{step.step}/{step.total_steps}"),
        )
        lines = [headline, bar, Text(_figures(step)), Text(_memory(step))]
        if self._progress.validation is not None:
            lines.append(Text(plain(self._progress.validation)))
        return Group(*lines)


def _figures(step: StepEvent) -> str:
    used = f"  {step.mfu:.0%} of peak" if step.mfu >= 0 else ""
    return (
        f"loss {step.loss:.4f}  lr {step.learning_rate:.2e}  grad {step.grad_norm:.2f}  "
        f"{step.tokens_per_second:,.0f} tokens/s ({step.supervised_tokens_per_second:,.0f} learnt)"
        f"{used}  {step.memory_bytes / 1e9:.1f} GB  ETA {_clock(step.eta_seconds)}"
    )


def _memory(step: StepEvent) -> str:
    each = ", ".join(f"{used / 1e9:.2f}" for used in step.worker_memory_bytes)
    return f"memory by worker: {each} GB" if each else ""


def _scores(metrics: Mapping[str, float]) -> str:
    return "".join(f"  {name} {scored(name, value)}" for name, value in metrics.items())


def scored(metric: str, value: float) -> str:
    """A score as people read it: a share in percent, a loss as it is, NaN as missing."""
    if math.isnan(value):
        return MISSING
    return f"{value:.4g}" if lower_is_better(metric) else f"{value:.1%}"


def _clock(seconds: float) -> str:
    if not seconds < float("inf"):
        return "unknown"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
