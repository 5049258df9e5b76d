"""TrainSpec: everything one fine-tuning job needs. A table of contents of a run."""

from pathlib import PurePath

from pydantic import Field, field_validator, model_validator

from raylora.config.compatibility import broken
from raylora.config.data_spec import DataSpec
from raylora.config.gate_spec import GateSpec
from raylora.config.lora_spec import LoraSpec
from raylora.config.model_spec import ModelSpec
from raylora.config.spec import AdapterName, NonEmpty, Spec
from raylora.config.training_spec import TrainingSpec
from raylora.config.workers_spec import WorkersSpec


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
    settle_seconds: float = Field(default=300.0, ge=0)
    """How long a job waits at its end for a server that answers slowly; the rest waits on disk."""


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
    gate: GateSpec = GateSpec()

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
    def _goes_together(self) -> "TrainSpec":
        for rule in broken(self):
            raise ValueError(f"{rule.reason} ({rule.found(self)}); {rule.remedy}")
        return self
