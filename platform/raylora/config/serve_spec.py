"""ServeSpec: one endpoint, its base model and the adapters it answers with."""

from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from raylora.config.model_spec import ModelSpec, Quantization
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
    step_timeout_s: float = Field(default=120, gt=0)
    """A step of raylora's engine that lasts longer is taken to hang: its requests end, and the
    replica is replaced. Most take milliseconds, but the first one on a GPU loads kernels, and
    where nobody generates a step takes in up to 4,096 tokens of prompts, for which a CPU may need
    half a minute. Raise it for models of billions of parameters on CPUs. vLLM hangs where no open
    request hears of it for that long."""


class AutoscalingSpec(Spec):
    """As many replicas as the waiting tokens need, instead of num_replicas."""

    min_replicas: int = Field(default=1, ge=0)
    """0 stops the last replica too; the next request waits for one to start."""
    max_replicas: int = Field(default=4, ge=1)
    tokens_per_replica: int = Field(default=8_000, ge=1)
    """Tokens of open requests, prompts and what answers may come to, that one replica is for."""
    up_after_s: float = Field(default=10, ge=0)
    down_after_s: float = Field(default=300, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> "AutoscalingSpec":
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is over max_replicas {self.max_replicas}"
            )
        return self


class RollbackSpec(Spec):
    """When a canary gets no more requests."""

    error_rate: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of its last answers; more failures end it. A request that is itself wrong is none."""
    window: int = Field(default=100, ge=1)
    min_requests: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _window_holds_them(self) -> "RollbackSpec":
        if self.min_requests > self.window:
            raise ValueError(f"min_requests {self.min_requests} is over window {self.window}")
        return self


class RouteSpec(Spec):
    """Two versions that answer one name: requests for the bare name go to stable or canary."""

    stable: AdapterName = "champion"
    """Alias or version number."""
    canary: AdapterName = "challenger"
    """Alias or version number; while there is none, stable answers everything."""
    weight: float = Field(default=0.1, ge=0, le=1)
    """Share of requests for the canary; one `user` always gets the same side."""
    shadow: bool = False
    """Stable answers everything, and the canary that share once more, only to be compared."""
    log_text: bool = False
    """Whether logged differences have 60 characters of both answers."""
    rollback: RollbackSpec = RollbackSpec()


class EngineKind(StrEnum):
    """What generates: raylora's own engine in the replica, or a vLLM server beside it."""

    RAYLORA = "raylora"
    VLLM = "vllm"


class VllmSpec(Spec):
    """The server of `engine: vllm`, one beside each replica."""

    python: NonEmpty | None = None
    """Interpreter of the environment that has vLLM, as a path where the replicas run; null is
    raylora's own. vLLM 0.32 wants another transformers than raylora, hence one of its own."""
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] = 64
    """Largest rank that is loaded; vLLM pads every adapter to it."""
    start_timeout_s: float = Field(default=600, gt=0)
    arguments: tuple[NonEmpty, ...] = ()
    """More arguments of vllm.entrypoints.openai.api_server, such as --tensor-parallel-size=2."""


class ServeSpec(Spec):
    """`raylora serve up` starts exactly this."""

    name: AdapterName = "raylora"
    """Name of the Ray Serve application."""
    outputs: NonEmpty = "outputs"
    model: ModelSpec = ModelSpec()
    engine: EngineKind = Field(default=EngineKind.RAYLORA, validate_default=True)
    vllm: VllmSpec = VllmSpec()
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
    routes: dict[AdapterName, RouteSpec] = {}
    """By name of the adapter."""
    host: NonEmpty = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    keys: NonEmpty | None = Field(default=None, validate_default=True)
    """File of keys that `raylora serve keys add` writes, read where the replicas run; without one
    the endpoint is open, and only on loopback."""
    access_log: NonEmpty | None = None
    """File that gets a JSON line for each request; null writes them to the replicas' logs."""
    num_replicas: int = Field(default=1, ge=1)
    autoscaling: AutoscalingSpec | None = None
    cpus_per_replica: float = Field(default=1, gt=0)
    gpus_per_replica: float = Field(default=0, ge=0)
    batching: BatchingSpec = BatchingSpec()
    tracking: TrackingSpec = TrackingSpec()

    @field_validator("keys")
    @classmethod
    def _open_on_loopback_only(cls, value: str | None, info: ValidationInfo) -> str | None:
        host = info.data.get("host")
        if value is None and host is not None and not is_loopback(host):
            raise ValueError(
                f"the host {host} is reached from other machines, and without keys anyone there "
                "could use the endpoint; write keys=FILE, a file that `raylora serve keys add "
                "NAME --file FILE` makes, or host=127.0.0.1"
            )
        return value

    @field_validator("engine")
    @classmethod
    def _vllm_keeps_plain_weights(cls, value: EngineKind, info: ValidationInfo) -> EngineKind:
        model = info.data.get("model")
        if value is EngineKind.VLLM and model and model.quantization is not Quantization.NONE:
            raise ValueError(
                f"vLLM would round the weights its own way, and model.quantization="
                f"{model.quantization} promises those that the adapters were trained on; write "
                "model.quantization=none or engine=raylora"
            )
        return value


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
