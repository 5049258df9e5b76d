"""Which rows are learnt from, how a row becomes tokens, and which of them count."""

from enum import StrEnum

from pydantic import Field, model_validator

from raylora.config.spec import NonEmpty, Spec

BUNDLED = "bundled:"
"""Begins the name of a source that ships with raylora."""


class Shape(StrEnum):
    """How a row spells a conversation; docs/datasets.md shows each."""

    AUTO = "auto"
    MESSAGES = "messages"
    SHAREGPT = "sharegpt"
    ALPACA = "alpaca"
    PROMPT_COMPLETION = "prompt_completion"
    TEXT = "text"
    TEMPLATE = "template"


class Supervise(StrEnum):
    """Which tokens the loss is computed on."""

    ANSWERS = "answers"
    """Every turn of the assistant, each with its end-of-turn token."""
    LAST = "last"
    """The last turn of the assistant alone."""
    ALL = "all"
    """Prompts as well."""


class Truncation(StrEnum):
    """What becomes of a row that is longer than max_length."""

    ERROR = "error"
    DROP = "drop"
    LEFT = "left"
    """Its beginning goes."""
    RIGHT = "right"
    """Its end goes."""
    SPLIT = "split"
    """It becomes several rows."""


class BadRows(StrEnum):
    """What becomes of a row that cannot be used."""

    ERROR = "error"
    SKIP = "skip"


class Packing(StrEnum):
    """What a row of a batch is."""

    NONE = "none"
    """One row of the data. Rows of a micro-batch are joined without padding all the same."""
    BEST_FIT = "best_fit"
    """As many rows of the data as fit into pack_length tokens; none of them sees another."""


class Order(StrEnum):
    """Order of rows within an epoch."""

    SHUFFLED = "shuffled"
    LENGTH_GROUPED = "length_grouped"
    """Rows of like length share a batch; which batch comes when is shuffled."""


class Ingest(StrEnum):
    """How rows reach the workers."""

    LOCAL = "local"
    """Tokenised once into a cache on disk, which training maps into memory."""
    STREAMING = "streaming"
    """Read and tokenised as training goes; needs training.max_steps."""
    RAY_DATA = "ray_data"
    """As local, tokenised by Ray Data on all nodes of the cluster."""


class SourceSpec(Spec):
    """One part of a mixture."""

    source: NonEmpty
    """File, glob, folder, fsspec URL, hub:ORG/NAME, or bundled:NAME/SPLIT."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """How often an epoch passes over its rows; 0.5 takes another half of them each time.

    With ingest=streaming, whose sizes are not known: how likely a row comes from this source.
    """
    split: NonEmpty = "train"
    """Split of a hub data set, or of a folder whose files are named by split."""
    shape: Shape = Shape.AUTO
    columns: dict[str, NonEmpty] = {}
    """The shape's column names to the row's own, such as {prompt: question}."""


class DataSpec(Spec):
    """Rows to learn from and rows held out."""

    train: NonEmpty = "bundled:home_requests/train"
    """File, glob, folder, fsspec URL, hub:ORG/NAME, or bundled:NAME/SPLIT."""
    mixture: tuple[SourceSpec, ...] = ()
    """More sources, mixed with train by weight; train has weight 1."""
    split: NonEmpty = "train"
    """Split of a hub data set, or of a folder whose files are named by split."""
    shape: Shape = Shape.AUTO
    """How rows spell a conversation; auto tells from the columns of the first."""
    columns: dict[str, NonEmpty] = {}
    """The shape's column names to the row's own, such as {prompt: question}."""
    prompt_template: str | None = None
    """Jinja over a row's columns that gives the user's message; with shape: template."""
    completion_template: str | None = None
    """Jinja over a row's columns that gives the answer; with shape: template."""
    validation: NonEmpty | None = None
    """Held-out rows for validation and evaluation; null for none, or for one of the next two."""
    validation_split: NonEmpty | None = None
    """Hold out this split of the training source instead."""
    validation_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Hold out this share of the training rows instead; 0 for none."""
    system_prompt: str | None = None
    """Put before every row that has no system message, at training, evaluation and in chat."""
    chat_template: NonEmpty | None = None
    """File with a Jinja chat template in place of the tokenizer's own."""
    supervise: Supervise = Supervise.ANSWERS
    max_length: int = Field(default=512, ge=16)
    """Tokens of a row."""
    truncation: Truncation = Truncation.ERROR
    bad_rows: BadRows = BadRows.ERROR
    """error stops at rows that cannot be used, skip leaves them out and lists them."""
    packing: Packing = Packing.NONE
    pack_length: int | None = Field(default=None, ge=16)
    """Tokens of a packed row; null takes max_length."""
    order: Order = Order.SHUFFLED
    ingest: Ingest = Ingest.LOCAL

    @property
    def sources(self) -> tuple[SourceSpec, ...]:
        """All training sources, `train` first."""
        first = SourceSpec(
            source=self.train, split=self.split, shape=self.shape, columns=self.columns
        )
        return (first, *self.mixture)

    @property
    def train_label(self) -> str:
        """The training sources as one line for people."""
        return " + ".join(part.source for part in self.sources)

    @property
    def holds_out(self) -> bool:
        """Whether there are held-out rows."""
        return bool(self.validation or self.validation_split or self.validation_ratio)

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> "DataSpec":
        if self.validation_ratio and (self.validation or self.validation_split):
            raise ValueError(
                "validation_ratio holds out training rows, and validation or validation_split "
                "names others; set validation: null and validation_split: null, or the ratio to 0"
            )
        if self.validation_split and self.validation:
            raise ValueError(
                "validation_split and validation both name held-out rows; set one of them to null"
            )
        return self

    @model_validator(mode="after")
    def _templates_belong_to_their_shape(self) -> "DataSpec":
        templated = any(part.shape is Shape.TEMPLATE for part in self.sources)
        if templated and not (self.prompt_template and self.completion_template):
            raise ValueError(
                "shape template needs prompt_template and completion_template; write both"
            )
        if not templated and (self.prompt_template or self.completion_template):
            raise ValueError(
                "prompt_template and completion_template are used with shape template only; "
                "write shape: template or drop them"
            )
        return self
