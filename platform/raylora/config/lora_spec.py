"""The adapter: its size, where it sits, how it starts. Names are PEFT's."""

from enum import StrEnum

from pydantic import Field

from raylora.config.spec import NonEmpty, Spec


class Init(StrEnum):
    """How A and B start; all but loftq, olora and pissa leave the base as it is."""

    DEFAULT = "default"
    """B is zero, A is Kaiming uniform."""
    GAUSSIAN = "gaussian"
    ORTHOGONAL = "orthogonal"
    PISSA = "pissa"
    """Principal singular vectors (Meng et al., 2024)."""
    OLORA = "olora"
    """QR decomposition (Buyukakyuz, 2024)."""
    LOFTQ = "loftq"
    """Makes up for the error of a quantised base (Li et al., 2023)."""


class LoraSpec(Spec):
    """The adapter."""

    r: int = Field(default=16, ge=1, le=256)
    lora_alpha: float = Field(default=32, gt=0)
    """Scale of the update is lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    """all-linear, or the last path component of each linear layer to adapt."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r) (Kalajdzievski, 2023)."""
    use_dora: bool = False
    """Learn magnitudes as well (Liu et al., 2024). Cannot share a batch when served: merge it."""
    init_lora_weights: Init = Init.DEFAULT
    pissa_niter: int = Field(default=0, ge=0, le=64)
    """Iterations of a fast approximate decomposition for pissa; 0 is exact."""
    loftq_iter: int = Field(default=1, ge=1, le=10)
    rank_pattern: dict[str, int] = {}
    """Other ranks for some layers, by the last component or components of their names."""
    alpha_pattern: dict[str, float] = {}
    modules_to_save: tuple[NonEmpty, ...] = ()
    """Layers trained and saved in full. Cannot share a batch when served: merge it."""
    loraplus_lr_ratio: float = Field(default=1.0, ge=1, le=1000)
    """Learning rate of B over that of A (LoRA+, Hayou et al., 2024)."""
