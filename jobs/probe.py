"""Does the adapter on disk give the logits of the model that was trained?

The worker that trained records logits for one row; whoever loads the adapter compares. Between
the two lie other kernels and thread counts, so the measure is relative: what the adapter changes
must come back to a tenth, or the difference must be rounding.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raylora.errors import InvalidAdapter

MAX_TOKENS = 32
SHARE = 0.1
"""Of the adapter's effect on the logits that a reloaded one may miss; a lost adapter misses 1."""
ROUNDINGS = 4
"""Times the dtype's rounding step, relative to the logits: a difference that means nothing."""


@dataclass(frozen=True)
class Recording:
    """What a model gave for a row."""

    input_ids: Tensor
    """[1, length]"""
    logits: Tensor
    """[1, length, vocabulary]"""

    def write(self, file: Path) -> None:
        """Keep it for whoever loads the adapter."""
        save_file({"input_ids": self.input_ids.cpu(), "logits": self.logits.cpu()}, file)


def record(model: nn.Module, input_ids: list[int]) -> Recording:
    """What the model, in memory and in eval mode, gives for the first tokens of a row."""
    device = next(model.parameters()).device
    ids = torch.tensor([input_ids[:MAX_TOKENS]], device=device)
    return Recording(ids, model(input_ids=ids).logits.detach())


def read(file: Path) -> Recording:
    """What was kept."""
    kept = load_file(file)
    return Recording(kept["input_ids"], kept["logits"])


def check(trained: Recording, base: Tensor, adapted: Tensor) -> float:
    """Mean difference of logits between the trained model and the reloaded adapter.

    `base` and `adapted` are what the base gives without and with the reloaded adapter. Raises
    InvalidAdapter where the difference is too large.
    """
    missed = _distance(adapted.cpu(), trained.logits)
    effect = _distance(base.cpu(), trained.logits)
    rounding = ROUNDINGS * max(torch.finfo(trained.logits.dtype).eps, 1e-5)
    allowed = max(SHARE * effect, rounding * float(trained.logits.float().abs().mean()))
    if not missed <= allowed:
        raise InvalidAdapter(
            f"reloaded, the adapter gives other logits than the trained model: they differ by "
            f"{missed:.4g} on average, {allowed:.4g} is allowed (the adapter's effect is "
            f"{effect:.4g})"
        )
    return missed


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().mean())
