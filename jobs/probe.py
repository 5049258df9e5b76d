"""Does the adapter on disk give the logits of the model that was trained?

The worker that trained records logits for one row; whoever loads the adapter compares. Between
the two lie other kernels and thread counts, so the measure is relative: what the adapter changes
must come back to a tenth, or the difference must be rounding.
"""

from collections.abc import Callable
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

Forward = Callable[[Tensor], Tensor]
"""Token ids [1, length] to logits [1, length, vocabulary]."""


def record(model: nn.Module, input_ids: list[int], file: Path) -> None:
    """Keep the logits that the model, in memory, gives for the first tokens of a row."""
    device = next(model.parameters()).device
    ids = torch.tensor([input_ids[:MAX_TOKENS]], device=device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    model.train(was_training)
    save_file({"input_ids": ids.cpu(), "logits": logits.cpu()}, file)


def check(file: Path, base: Forward, adapted: Forward) -> float:
    """Mean difference of logits between the trained model and the reloaded adapter.

    Raises InvalidAdapter where it is too large.
    """
    kept = load_file(file)
    trained, ids = kept["logits"], kept["input_ids"]
    with torch.no_grad():
        missed = _distance(adapted(ids).cpu(), trained)
        effect = _distance(base(ids).cpu(), trained)
    rounding = ROUNDINGS * max(torch.finfo(trained.dtype).eps, 1e-5)
    allowed = max(SHARE * effect, rounding * float(trained.float().abs().mean()))
    if not missed <= allowed:
        raise InvalidAdapter(
            f"reloaded, the adapter gives other logits than the trained model: they differ by "
            f"{missed:.4g} on average, {allowed:.4g} is allowed (the adapter's effect is "
            f"{effect:.4g})"
        )
    return missed


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().mean())
