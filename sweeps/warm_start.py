"""A trial that begins with the weights of another one, perhaps at another rank.

The weights become a checkpoint of step 0, from which the training loop starts as from any other.
Numpy only, as the driver has no torch.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from raylora.config.lora_spec import LoraSpec
from raylora.config.places import RunPlaces
from raylora.config.train_spec import TrainSpec
from raylora.errors import RayloraError
from raylora.jobs.train.checkpoint_format import (
    ADAM_MOMENTS,
    ADAM_STEPS,
    PROGRESS,
    STATE,
    WEIGHT,
    folder_of,
    newest_whole,
)
from raylora.lora import atomic, manifest
from raylora.lora.adapter_config import ends_with

Matrix = NDArray[np.float32]
A, B = ".lora_A.", ".lora_B."


def start_warm(
    parent: TrainSpec, parent_places: RunPlaces, child: TrainSpec, child_places: RunPlaces
) -> None:
    """Give the child a checkpoint of step 0 with the parent's newest weights.

    Nothing happens where the child has begun. Raises RayloraError where there are no weights, or
    none that fit.
    """
    if newest_whole(child_places.checkpoints) is not None:
        return
    state, progress = _newest(parent, parent_places, child)
    kept = _resized(state, parent.lora, child.lora, np.random.default_rng(child.training.seed))
    progress |= {"step": 0, "losses": [], "validations": [], "seed": child.training.seed}
    with atomic.directory(folder_of(child_places.checkpoints, 0)) as staged:
        save_file(kept, staged / STATE)
        (staged / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
        manifest.write(staged, {})


def resize(
    a: Matrix, b: Matrix, r: int, factor: float, dice: np.random.Generator
) -> tuple[Matrix, Matrix]:
    """A (r, in) and B (out, r) at another rank, with `factor` times the product BA.

    Exact where the rank does not shrink: new rows of A are drawn as for a new adapter, new columns
    of B are 0. Else the nearest product of that rank (Eckart and Young, 1936).
    """
    old, width = a.shape
    if r >= old:
        bound = 1 / math.sqrt(width)  # Kaiming uniform with a = sqrt(5), as PEFT draws A
        rows = dice.uniform(-bound, bound, (r - old, width)).astype(np.float32)
        columns = np.zeros((len(b), r - old), np.float32)
        return np.concatenate([a, rows]), np.concatenate([b * np.float32(factor), columns], 1)
    qb, rb = np.linalg.qr(b)
    qa, ra = np.linalg.qr(a.T)
    u, s, v = np.linalg.svd(rb @ ra.T)
    root = np.sqrt(s[:r])
    return (root[:, None] * v[:r]) @ qa.T, (qb @ u[:, :r]) * (root * np.float32(factor))


def _newest(
    parent: TrainSpec, places: RunPlaces, child: TrainSpec
) -> tuple[dict[str, Matrix], dict[str, Any]]:
    newest = newest_whole(places.checkpoints)
    if newest is None:
        raise RayloraError(
            "the trial has no checkpoint to start from",
            hint=f"wait until it has done training.save_steps={parent.training.save_steps} "
            "steps, or leave --warm out",
        )
    same = parent.model == child.model and parent.lora.named_targets == child.lora.named_targets
    state: dict[str, Matrix] = load_file(newest / STATE)
    if not same or not any(key.startswith(ADAM_MOMENTS[0]) for key in state):
        raise RayloraError(
            "weights of another base, of other target modules or of an 8-bit optimizer do not fit",
            hint="leave --warm out",
        )
    return state, json.loads((newest / PROGRESS).read_text(encoding="utf-8"))


def _resized(
    state: Mapping[str, Matrix], old: LoraSpec, new: LoraSpec, dice: np.random.Generator
) -> dict[str, Matrix]:
    """Weights at the new ranks; the optimizer starts afresh."""
    weights = {key: value for key, value in state.items() if key.startswith(WEIGHT)}
    for key in [key for key in weights if A in key]:
        partner, layer = key.replace(A, B), key.removeprefix(WEIGHT).partition(A)[0]
        factor = _scale(old, layer) / _scale(new, layer)
        weights[key], weights[partner] = resize(
            weights[key], weights[partner], _rank(new, layer), factor, dice
        )
    moments = {
        key.replace(WEIGHT, f"{moment}/", 1): np.zeros_like(value)
        for key, value in weights.items()
        for moment in ADAM_MOMENTS
    }
    rest = {
        key: value
        for key, value in state.items()
        if not key.startswith((WEIGHT, *(f"{moment}/" for moment in ADAM_MOMENTS)))
    }
    return {**weights, **moments, **rest, ADAM_STEPS: np.zeros_like(state[ADAM_STEPS])}


def _scale(lora: LoraSpec, layer: str) -> float:
    """Of BA in a layer."""
    r = _rank(lora, layer)
    return _own(lora.alpha_pattern, layer, lora.lora_alpha) / (
        math.sqrt(r) if lora.use_rslora else r
    )


def _rank(lora: LoraSpec, layer: str) -> int:
    return int(_own(lora.rank_pattern, layer, lora.r))


def _own(pattern: Mapping[str, float], layer: str, default: float) -> float:
    """The value of the longest name that fits, as PEFT is told."""
    for name in sorted(pattern, key=len, reverse=True):
        if ends_with(layer, name):
            return pattern[name]
    return default
