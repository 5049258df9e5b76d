"""adapter_config.json, read as the untrusted input it is.

PEFT acts on many of its keys: it allocates by `r`, imports by `auto_mapping`, changes the base by
`init_lora_weights: pissa`. Here every key of peft 0.21's LoraConfig is known, those that would
need more than matrices on frozen linear layers, DoRA's magnitudes and whole modules must hold
their neutral value, and unknown keys are refused.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from raylora.config.lora_spec import MAX_RANK
from raylora.errors import InvalidAdapter

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
"""Files of an adapter directory, beside raylora.json; the template only if it is its own."""

_MAX_BYTES = 1 << 20

ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]{1,200}$")]
"""A layer's name or the end of it; no regular expressions."""
Rank = Annotated[int, Field(ge=1, le=MAX_RANK, strict=True)]
Alpha = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
_TIED = ("embed_tokens", "lm_head")
"""One matrix in many bases; with ensure_weight_tying PEFT saves it under both names."""
_Number = TypeVar("_Number", int, float)
Nothing = Literal[False] | None
Empty = Annotated[list[Any] | dict[str, Any], Field(max_length=0)] | None


class AdapterConfig(BaseModel):
    """The keys that are used, then those that must be neutral."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    peft_type: Literal["LORA"]
    r: Rank
    lora_alpha: Alpha
    target_modules: Annotated[list[ModuleName], Field(min_length=1, max_length=1000)]
    use_rslora: bool = False
    use_dora: bool | None = False
    modules_to_save: Annotated[list[ModuleName], Field(max_length=100)] | None = None
    ensure_weight_tying: bool = False
    rank_pattern: dict[ModuleName, Rank] = {}
    alpha_pattern: dict[ModuleName, Alpha] = {}
    base_model_name_or_path: str | None = None
    revision: str | None = None

    # Of no effect on inference.
    task_type: Literal["CAUSAL_LM"] | None = None
    peft_version: str | None = None
    inference_mode: bool = True
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    init_lora_weights: bool | Literal["gaussian", "orthogonal", "eva"] = True
    megatron_core: Literal["megatron.core"] | None = None
    qalora_group_size: int | None = None

    # Neutral, or refused.
    bias: Literal["none"] = "none"
    auto_mapping: Nothing = None
    exclude_modules: Empty = None
    fan_in_fan_out: Nothing = False
    layers_to_transform: Empty = None
    layers_pattern: Empty = None
    megatron_config: Nothing = None
    trainable_token_indices: Empty = None
    loftq_config: Empty = None
    eva_config: Nothing = None
    corda_config: Nothing = None
    lora_ga_config: Nothing = None
    velora_config: Nothing = None
    alora_invocation_tokens: Empty = None
    use_qalora: Nothing = False
    monteclora_config: Nothing = None
    layer_replication: Empty = None
    lora_bias: Nothing = False
    target_parameters: Empty = None
    use_bdlora: Nothing = None
    arrow_config: Nothing = None
    kasa_config: Nothing = None

    @property
    def alone_because(self) -> str:
        """Why it cannot share a batch with other adapters; empty where it can."""
        if self.use_dora:
            return "it learnt magnitudes (use_dora)"
        if self.modules_to_save:
            return f"it has {self.modules_to_save[0]} in full (modules_to_save)"
        return ""

    def saves(self, module: str) -> bool:
        """Whether a module is, or lies in, one that is saved in full."""
        tied = self.ensure_weight_tying and module.rpartition(".")[2] in _TIED
        return tied or any(lies_in(module, top) for top in self.modules_to_save or [])

    def targets(self, module: str) -> bool:
        """Whether the linear layer of this name is adapted."""
        named = any(ends_with(module, target) for target in self.target_modules)
        return named and not self.saves(module)

    def rank(self, module: str) -> int:
        """Rank of the layer's A and B."""
        return _by_pattern(self.rank_pattern, module, self.r)

    def alpha(self, module: str) -> float:
        """lora_alpha of the layer."""
        return _by_pattern(self.alpha_pattern, module, self.lora_alpha)

    def scale(self, module: str) -> float:
        """Factor on B A x: alpha / r, or alpha / sqrt(r) with rsLoRA."""
        rank = self.rank(module)
        return self.alpha(module) / (math.sqrt(rank) if self.use_rslora else rank)


def read(path: Path) -> AdapterConfig:
    """Read the file. Raises InvalidAdapter with every key at fault."""
    if path.is_symlink():
        raise InvalidAdapter(f"{path.parent}: {path.name} is not a regular file")
    if not path.is_file():
        raise InvalidAdapter(f"{path.parent}: there is no {path.name}")
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise InvalidAdapter(f"{path}: {size} bytes, more than {_MAX_BYTES}")
    try:
        return AdapterConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        faults = "; ".join(_describe(fault) for fault in error.errors(include_url=False)[:5])
        raise InvalidAdapter(
            f"{path}: {faults}",
            hint="raylora takes LoRA and DoRA on linear layers, r up to "
            f"{MAX_RANK}, and modules saved in full",
        ) from error


def chat_template(directory: Path) -> str | None:
    """What an adapter was trained with, where that is not its base's. Raises InvalidAdapter."""
    file = directory / CHAT_TEMPLATE
    if not file.is_file():
        return None
    if (size := file.stat().st_size) > _MAX_BYTES:
        raise InvalidAdapter(f"{file}: {size} bytes, more than {_MAX_BYTES}")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidAdapter(f"{directory}: {CHAT_TEMPLATE} is not UTF-8") from error


def ends_with(module: str, end: str) -> bool:
    """Whether the last component or components of a layer's name are `end`."""
    return module == end or module.endswith(f".{end}")


def lies_in(module: str, top: str) -> bool:
    """Whether a module is, or is a part of, one whose name is or ends with `top`."""
    return f".{top}." in f".{module}."


def _describe(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"][:2])
    found = repr(fault["input"])
    short = found if len(found) <= 60 else found[:57] + "..."
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key} (found {short})"
    return f"{key}: {fault['msg']} (found {short})" if key else str(fault["msg"])


def _by_pattern(patterns: dict[str, _Number], module: str, default: _Number) -> _Number:
    return next((value for key, value in patterns.items() if ends_with(module, key)), default)
