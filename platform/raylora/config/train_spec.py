"""TrainSpec: everything one fine-tuning job needs. A table of contents of a run."""

from enum import StrEnum
from pathlib import PurePath

from pydantic import Field, field_validator, model_validator

from raylora.config.model_spec import ModelSpec
from raylora.config.spec import AdapterName, NonEmpty, Spec


class DataSpec(Spec):
    """Rows of chat messages, one JSON object a line: {"messages": [{"role", "content"}, ...]}."""

    train: NonEmpty = "bundled:home_requests/train"
    """Path, or bundled:NAME/SPLIT for a data set that ships with raylora."""
    validation: str | None = "bundled:home_requests/heldout"
    """Held-out rows for the evaluation before and after training; null for none."""
    system_prompt: str | None = None
    """Put before every row that has no system message, at training, evaluation and in chat."""
    max_length: int = Field(default=512, ge=16)
    """Rows longer than this many tokens are an error that names the row."""


class LoraSpec(Spec):
    """The adapter. Names are PEFT's."""

    r: int = Field(default=16, ge=1, le=256)
    lora_alpha: float = Field(default=32, gt=0)
    """Scale of the update is lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    """all-linear, or the last path component of each linear layer to adapt."""


class Schedule(StrEnum):
    """Learning rate after warm-up."""

    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"


class TrainingSpec(Spec):
    """Optimisation: AdamW with warm-up over shuffled rows."""

    learning_rate: float = Field(default=1e-3, gt=0)
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the training rows; ignored when max_steps is set."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps in all; null derives it from epochs."""
    global_batch_size: int = Field(default=8, ge=1)
    """Rows per optimizer step over all workers."""
    micro_batch_size: int = Field(default=4, ge=1)
    """Rows per forward pass of one worker."""
    lr_scheduler: Schedule = Schedule.LINEAR
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)
    logging_steps: int = Field(default=1, ge=1)
    save_steps: int = Field(default=25, ge=1)
    """Optimizer steps between checkpoints; the last step always makes one."""
    keep_checkpoints: int = Field(default=2, ge=2)
    """At least 2: a damaged newest checkpoint falls back to the one before."""


class WorkersSpec(Spec):
    """Ray Train workers and how optimizer state is sharded over them."""

    num_workers: int = Field(default=2, ge=1)
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=0, ge=0)
    zero_stage: int = Field(default=2, ge=0, le=2)
    """DeepSpeed ZeRO stage."""
    max_failures: int = Field(default=3, ge=0)
    """Worker failures survived before the job fails."""
    cpu_comm_op: bool = False
    """DeepSpeed's shared-memory all-reduce for CPUs. Needs a C++ compiler; off means gloo."""


class EvaluationSpec(Spec):
    """Generated answers on the held-out rows, before and after training."""

    max_new_tokens: int = Field(default=64, ge=1)
    batch_size: int = Field(default=16, ge=1)
    max_rows: int | None = Field(default=None, ge=1)
    """Evaluate only the first rows; null for all."""
    metrics: tuple[NonEmpty, ...] = ("exact_match", "json_valid", "json_fields")


class TrackingSpec(Spec):
    """Where MLflow keeps runs and registered adapters."""

    uri: str | None = None
    """MLflow tracking URI; null is SQLite in the outputs folder."""
    experiment: AdapterName = "default"
    register_as: AdapterName | None = None
    """Registered model name; null takes the spec's name."""
    system_metrics: bool = True


class TrainSpec(Spec):
    """One fine-tuning job: `raylora submit` runs exactly this."""

    name: AdapterName = "adapter"
    """Name of the job and, unless tracking.register_as says otherwise, of the adapter."""
    outputs: NonEmpty = "outputs"
    """Folder (or any path pyarrow can write to) for runs, checkpoints and the local MLflow."""
    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    lora: LoraSpec = LoraSpec()
    training: TrainingSpec = TrainingSpec()
    workers: WorkersSpec = WorkersSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    tracking: TrackingSpec = TrackingSpec()

    @property
    def adapter_name(self) -> str:
        """Registered model name of the finished adapter."""
        return self.tracking.register_as or self.name

    @field_validator("outputs")
    @classmethod
    def _outputs_is_not_root(cls, value: str) -> str:
        if PurePath(value) == PurePath("/"):
            raise ValueError("outputs may not be the root folder; write a folder such as outputs")
        return value

    @model_validator(mode="after")
    def _batches_divide(self) -> "TrainSpec":
        workers, batch = self.workers.num_workers, self.training.global_batch_size
        micro = self.training.micro_batch_size
        if batch % workers:
            raise ValueError(
                f"training.global_batch_size={batch} cannot be split over "
                f"workers.num_workers={workers}; make it a multiple of {workers}"
            )
        if (batch // workers) % micro:
            raise ValueError(
                f"training.micro_batch_size={micro} does not divide the {batch // workers} rows "
                f"of one worker (training.global_batch_size={batch} / "
                f"workers.num_workers={workers}); choose a divisor of {batch // workers}"
            )
        return self

    @model_validator(mode="after")
    def _rows_fit_the_model(self) -> "TrainSpec":
        if self.data.max_length > self.model.max_length:
            raise ValueError(
                f"data.max_length={self.data.max_length} is longer than "
                f"model.max_length={self.model.max_length}; lower the first or raise the second"
            )
        return self
