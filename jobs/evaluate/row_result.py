"""What one subject made of one row; the unit of predictions, scores and comparisons."""

from dataclasses import dataclass, field

from raylora.jobs.data.conversation import Message


@dataclass(frozen=True)
class RowResult:
    """One subject's answer to one row, and its scores."""

    dataset: str
    file: str
    line: int
    """1-based."""
    subject: str
    prompt: list[Message] = field(default_factory=list[Message])
    """System prompt included; empty for plain text and for a row that was not asked."""
    reference: str = ""
    answer: str | None = None
    """None where no metric looks at an answer."""
    finish_reason: str | None = None
    tokens: int | None = None
    """Generated, the end token included."""
    choice: str | None = None
    """The likeliest of the row's options, where it has some."""
    reference_tokens: int | None = None
    """That the loss is a mean over, the end token included."""
    scores: dict[str, float | None] = field(default_factory=dict[str, float | None])
    """By metric; None where the metric says nothing of the row. perplexity is no row's."""
    unasked: str = ""
    """Why the model cannot be asked this row; then there are no scores."""

    @property
    def place(self) -> tuple[str, str, int]:
        """What tells the row from others: subjects share it."""
        return self.dataset, self.file, self.line
