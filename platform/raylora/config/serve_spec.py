"""ServeSpec: one endpoint, its base model and the adapters it answers with."""

from typing import Annotated

from pydantic import Field

from raylora.config.model_spec import ModelSpec
from raylora.config.spec import AdapterName, NonEmpty, Spec
from raylora.config.train_spec import TrackingSpec


class BatchingSpec(Spec):
    """How many sequences generate together, and for how long."""

    max_batch_size: int = Field(default=16, ge=1)
    max_queue: int = Field(default=256, ge=1)
    """Requests waiting beyond the batch; more are answered 429."""
    default_max_tokens: int = Field(default=256, ge=1)
    """Used where a request names no max_tokens."""
    request_timeout_s: float = Field(default=300, gt=0)
    cache_mb: int = Field(default=1024, ge=1)
    """Memory for keys and values, in MiB: of the requests that generate, and of the beginnings of
    earlier ones, which are reused. Requests wait for room."""
    prefill_tokens: int = Field(default=256, ge=2)
    """Prompt tokens computed in one step beside the requests that generate."""


class ServeSpec(Spec):
    """`raylora serve up` starts exactly this."""

    name: AdapterName = "raylora"
    """Name of the Ray Serve application."""
    outputs: NonEmpty = "outputs"
    model: ModelSpec = ModelSpec()
    adapters: tuple[NonEmpty, ...] = ()
    """References: name, name@7 or name@alias. Empty serves the champion of every name."""
    max_adapters: int = Field(default=64, ge=1)
    """Versions held in memory; the one that was used longest ago makes room for another."""
    adapter_memory_mb: int = Field(default=4096, ge=1)
    """Memory that they take together at most, in MiB."""
    poll_interval_s: float = Field(default=2, gt=0)
    """Every replica asks the registry this often which aliases have moved."""
    adapters_root: Annotated[str, Field(pattern="^/")] | None = None
    """Folder, as an absolute path where the replicas run, below which /v1/load_lora_adapter takes
    adapters; null refuses that route."""
    host: NonEmpty = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    num_replicas: int = Field(default=1, ge=1)
    cpus_per_replica: float = Field(default=1, gt=0)
    gpus_per_replica: float = Field(default=0, ge=0)
    batching: BatchingSpec = BatchingSpec()
    tracking: TrackingSpec = TrackingSpec()
