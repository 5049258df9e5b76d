"""Several models answer the same prompt at once, in columns that grow while they write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Thread

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raylora.cli.endpoint_client import Answer
from raylora.errors import RayloraError

FRAMES_A_SECOND = 12

Ask = Callable[[Callable[[str], None]], Answer]
"""Gets an answer, and shows each piece of it as it comes."""


@dataclass
class Column:
    """One model's answer, so far."""

    name: str
    pieces: list[str] = field(default_factory=list[str])
    answer: Answer | None = None
    error: RayloraError | None = None

    def ask(self, ask: Ask) -> None:
        """Get the answer; what goes wrong stays in this column."""
        try:
            self.answer = ask(self.pieces.append)
        except RayloraError as error:
            self.error = error
        except Exception as error:
            self.error = RayloraError(f"{self.name}: {type(error).__name__}: {error}")

    @property
    def title(self) -> str:
        """The version that answers, once it is known."""
        return self.answer.model if self.answer else self.name

    @property
    def text(self) -> Text:
        """What it has said, or what went wrong."""
        if self.error is not None:
            return Text(self.error.message, style="red")
        return Text(self.answer.text if self.answer else "".join(self.pieces))

    @property
    def speed(self) -> str:
        """Tokens and times, at the end."""
        return self.answer.speed if self.answer else ""


def ask_all(names: Sequence[str], asks: Sequence[Ask], console: Console) -> list[Column]:
    """Ask all at once; on a terminal the columns grow, elsewhere they are printed at the end."""
    columns = [Column(name) for name in names]
    # Daemons: Ctrl-C ends the program, and not only once the last answer is there.
    asking = [
        Thread(target=column.ask, args=(ask,), daemon=True)
        for column, ask in zip(columns, asks, strict=True)
    ]
    for thread in asking:
        thread.start()
    if console.is_terminal:
        with Live(
            console=console,
            refresh_per_second=FRAMES_A_SECOND,
            vertical_overflow="visible",
            get_renderable=lambda: table(columns),
        ):
            _wait(asking)
    else:
        _wait(asking)
        console.print(table(columns))
    return columns


def table(columns: Sequence[Column]) -> Table:
    """The columns, with tokens and times below them."""
    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, show_footer=True, expand=False)
    for column in columns:
        made.add_column(
            column.title, footer=column.speed, overflow="fold", ratio=1, footer_style="dim"
        )
    made.add_row(*(column.text for column in columns))
    return made


def _wait(threads: Sequence[Thread]) -> None:
    for thread in threads:
        thread.join()
