"""How much of what a device could compute is useful (MFU): operations needed over its peak.

Forward and backward of a token through frozen weights cost 4 operations a weight (no gradient of
the weight itself) and through trained ones 6. The head is only needed where there are labels.
Causal attention costs 12 * layers * width * length / 2 a token. Nothing else is counted: norms,
padding, recomputed activations are no use.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from raylora.lora.base import linear_shapes

SECONDS = 0.1
"""Measured for so long; training waits for it."""
SIDES = {"cuda": 8192, "mps": 2048}
"""Of square matrices that keep a device busy; 1024 on a CPU (14 ms in fp32 on one core)."""


@dataclass(frozen=True)
class Work:
    """What went through the model."""

    tokens: int = 0
    supervised: int = 0
    squares: int = 0
    """Sum of the squared lengths of documents."""

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.tokens + other.tokens,
            self.supervised + other.supervised,
            self.squares + other.squares,
        )


@dataclass(frozen=True)
class Cost:
    """Operations by what goes through; counted before weights are split over workers."""

    per_token: float
    per_supervised: float
    per_square: float

    def of(self, work: Work) -> float:
        """Operations of forward and backward."""
        return (
            work.tokens * self.per_token
            + work.supervised * self.per_supervised
            + work.squares * self.per_square
        )


def cost_of(base: PreTrainedModel) -> Cost:
    """Count a base that carries its adapter."""
    trained = sum(p.numel() for p in base.parameters() if p.requires_grad)
    shapes = linear_shapes(base).items()
    frozen = sum(rows * columns for name, (rows, columns) in shapes if "lora_" not in name)
    config: Any = base.config.get_text_config()
    heads: int = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Cost(
        per_token=4.0 * frozen + 6.0 * trained,
        per_supervised=4.0 * config.vocab_size * config.hidden_size,
        per_square=6.0 * config.num_hidden_layers * width,
    )


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of the fastest product of square matrices."""
    side = SIDES.get(device.type, 1024)
    generator = torch.Generator().manual_seed(0)  # leave the run's own stream alone
    a = torch.randn(side, side, generator=generator).to(device, dtype)
    out = a @ a
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        _wait(device)
        began = time.perf_counter()
        torch.mm(a, a, out=out)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2.0 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
