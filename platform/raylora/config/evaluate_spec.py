"""EvaluateSpec: which models are asked which rows, and how their answers are measured."""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from pydantic import Field, field_validator, model_validator

from raylora.config.data_spec import DataSpec, Shape, SourceSpec, Supervise
from raylora.config.metric import Metric, is_own
from raylora.config.model_spec import ModelSpec
from raylora.config.spec import AdapterName, NonEmpty, Spec
from raylora.config.train_spec import EvaluationSpec, TrackingSpec

BASE = "base"
"""The subject that is the base alone."""


class AskedSpec(Spec):
    """One data set that is asked."""

    source: NonEmpty = "bundled:home_requests/heldout"
    """File, glob, folder, fsspec URL, hub:ORG/NAME, or bundled:NAME/SPLIT."""
    name: AdapterName | None = None
    """What results call it; null takes the source's last name."""
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
    system_prompt: str | None = None
    """Put before every row that has no system message, as in training."""
    chat_template: NonEmpty | None = None
    """File with a Jinja chat template in place of the tokenizer's and the adapters' own."""
    metrics: tuple[NonEmpty, ...] | None = Field(default=None, min_length=1)
    """What answers are measured by; null takes evaluation.metrics."""
    max_rows: int | None = Field(default=None, ge=1)
    """Ask only the first rows; null takes evaluation.max_rows."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """null takes evaluation.max_new_tokens."""
    pattern: NonEmpty | None = None
    """Regular expression of the metric regex_match, looked for anywhere in the answer."""
    options: tuple[NonEmpty, ...] = ()
    """What choice_accuracy chooses from: the same for every row."""
    options_column: NonEmpty | None = None
    """Column with each row's own list of options."""
    general: bool = False
    """Not what the adapters were made for: being worse than the base here is forgetting."""

    @property
    def label(self) -> str:
        """What results call the data set."""
        return self.name or _last_name(self.source)

    @property
    def origin(self) -> SourceSpec:
        """The source as the readers of rows take it."""
        return SourceSpec(
            source=self.source, split=self.split, shape=self.shape, columns=self.columns
        )

    def as_data(self, max_length: int) -> DataSpec:
        """How its rows are read, and their answers found in at most so many tokens."""
        return DataSpec(
            train=self.source,
            split=self.split,
            shape=self.shape,
            columns=self.columns,
            prompt_template=self.prompt_template,
            completion_template=self.completion_template,
            system_prompt=self.system_prompt,
            chat_template=self.chat_template,
            supervise=Supervise.LAST,
            max_length=max_length,
        )

    def unfit(self, names: Sequence[str]) -> Iterator[str]:
        """Say of metrics what keeps them from this data set, behind the key that names them."""
        for name in names:
            if not is_own(name) and name not in tuple(Metric):
                yield (
                    f"has no metric called {name!r}; write some of: {', '.join(Metric)}, or "
                    "module:function of your own"
                )
        if Metric.REGEX_MATCH in names and self.pattern is None:
            yield (
                f"has regex_match, and the data set {self.label} has no pattern; write its "
                "pattern, or drop the metric"
            )
        if Metric.CHOICE_ACCURACY in names and not (self.options or self.options_column):
            yield (
                f"has choice_accuracy, and the data set {self.label} has no options; write its "
                "options or options_column, or drop the metric"
            )

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}; mend it") from error
        return value

    @model_validator(mode="after")
    def _metrics_fit(self) -> "AskedSpec":
        for problem in self.unfit(self.metrics or ()):
            raise ValueError(f"metrics {problem}")
        return self


class AskingSpec(Spec):
    """Ray tasks that answer, each with a base of its own."""

    num_workers: int = Field(default=1, ge=1)
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=0, ge=0)


class EvaluateSpec(Spec):
    """`raylora evaluate` runs exactly this."""

    name: AdapterName = "evaluation"
    """Name of the job and of its MLflow run."""
    outputs: NonEmpty = "outputs"
    model: ModelSpec = ModelSpec()
    subjects: tuple[NonEmpty, ...] = Field(default=(BASE,), min_length=1)
    """Who is asked: base, name, name@7, name@alias, or the folder of an adapter (with a /).

    Each is compared with every one before it, row by row.
    """
    datasets: tuple[AskedSpec, ...] = (AskedSpec(),)
    """Data sets, asked one after the other."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """For every data set that does not say otherwise."""
    module: NonEmpty | None = None
    """Python file with metrics of your own; it travels with the job."""
    workers: AskingSpec = AskingSpec()
    tracking: TrackingSpec = TrackingSpec()

    def metrics_of(self, data: AskedSpec) -> tuple[str, ...]:
        """What the answers to a data set are measured by."""
        return data.metrics or self.evaluation.metrics

    def max_rows_of(self, data: AskedSpec) -> int | None:
        """How many of its rows are asked; None for all."""
        return data.max_rows or self.evaluation.max_rows

    def max_new_tokens_of(self, data: AskedSpec) -> int:
        """How long an answer may become."""
        return data.max_new_tokens or self.evaluation.max_new_tokens

    @field_validator("subjects")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := _repeated(value):
            raise ValueError(f"subjects names {repeated} twice; name each once")
        return value

    @field_validator("datasets")
    @classmethod
    def _each_by_a_name(cls, value: tuple[AskedSpec, ...]) -> tuple[AskedSpec, ...]:
        if not value:
            raise ValueError("datasets is empty; write a data set, such as - source: rows.jsonl")
        if repeated := _repeated([data.label for data in value]):
            raise ValueError(f"two data sets are called {repeated}; give one another name")
        return value

    @model_validator(mode="after")
    def _metrics_fit_the_data(self) -> "EvaluateSpec":
        for data in self.datasets:
            for problem in data.unfit(self.metrics_of(data)):
                raise ValueError(f"evaluation.metrics {problem}")
        return self


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for place, name in enumerate(names) if name in names[:place]), None)


def _last_name(source: str) -> str:
    """Of a path, URL or bundled:NAME/SPLIT, in the letters that a name may have."""
    path = PurePath(source.rstrip("/"))
    stem = path.parent.name.partition(":")[2] if source.startswith("bundled:") else path.stem
    kept = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:64]
    return kept or "data"
