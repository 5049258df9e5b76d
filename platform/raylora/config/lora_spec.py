"""The adapter: its size, where it sits, how it starts. Names are PEFT's."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from raylora.config.spec import NonEmpty, Spec


class Init(StrEnum):
    """How A and B start. pissa and olora change the base, which is undone when they are saved."""

    DEFAULT = "default"
    """B is zero, A is Kaiming uniform."""
    GAUSSIAN = "gaussian"
    ORTHOGONAL = "orthogonal"
    PISSA = "pissa"
    """Principal singular vectors (Meng et al., 2024)."""
    OLORA = "olora"
    """QR decomposition (Buyukakyuz, 2024)."""
    LOFTQ = "loftq"
    """Makes up for the rounding of a 4-bit base (Li et al., 2023; one iteration)."""


DECOMPOSING = (Init.PISSA, Init.OLORA)
"""Start from the base's own weights, and change them; saved with twice the rank."""

MAX_RANK = 256
"""Of a layer's A and B; what the bank takes."""

Rank = Annotated[int, Field(ge=1, le=MAX_RANK)]
Alpha = Annotated[float, Field(gt=0)]


class LoraSpec(Spec):
    """The adapter."""

    r: Rank = 16
    lora_alpha: Alpha = 32
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
    rank_pattern: dict[str, Rank] = {}
    """Other ranks for some layers, by the ends of their names: q_proj, or 0.self_attn.q_proj."""
    alpha_pattern: dict[str, Alpha] = {}
    """Other lora_alpha for some layers, named as in rank_pattern."""
    modules_to_save: tuple[NonEmpty, ...] = ()
    """Layers trained and saved in full. Cannot share a batch when served: merge it."""
    loraplus_lr_ratio: float = Field(default=1.0, ge=1, le=1000)
    """Learning rate of B over that of A (LoRA+, Hayou et al., 2024)."""

    @property
    def largest_r(self) -> int:
        """The largest rank that a layer may have."""
        return max(self.r, *self.rank_pattern.values(), 0)

    @property
    def named_targets(self) -> tuple[str, ...]:
        """target_modules as names; all-linear is one of them."""
        named = self.target_modules
        return (named,) if isinstance(named, str) else named
