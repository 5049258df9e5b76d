"""Follow a job: a display for people, plain lines for files, JSON lines for programs."""

import json
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

import click
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raylora.cli.event_text import clock, figures, memory, plain
from raylora.cli.output import chatter_console, note
from raylora.cli.progress import Outcome, Progress
from raylora.cluster import events
from raylora.cluster.events import ErrorEvent, Event, StepEvent
from raylora.cluster.jobs import JobClient


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
    """One line an event on stderr; an error is what the command ends with."""

    def event(self, event: Event) -> None:
        if not isinstance(event, ErrorEvent):
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
        if not isinstance(event, StepEvent | ErrorEvent):
            self._live.console.print(Text(plain(event)), soft_wrap=True)

    def _render(self) -> Group:
        step = self._progress.step
        elapsed = clock(time.monotonic() - self._started)
        headline = Text(f"{self._progress.stage}  {elapsed}", style="bold")
        if step is None or self._progress.stage != "train":
            return Group(headline)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=step.total_steps, completed=step.step, width=40),
            Text(f"{step.step}/{step.total_steps}"),
        )
        lines = [headline, bar, Text(figures(step)), Text(memory(step))]
        if self._progress.validation is not None:
            lines.append(Text(plain(self._progress.validation)))
        return Group(*lines)
