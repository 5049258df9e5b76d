"""How far two runs of the same trial are apart: by their losses, and by the adapters they made."""

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from safetensors.torch import load_file


def largest(one: Sequence[float], other: Sequence[float]) -> float:
    """Relative difference of the step in which two runs differ most."""
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def share_of_spread(
    one: Sequence[float], other: Sequence[float], runs: Sequence[Sequence[float]]
) -> float:
    """How far two runs are apart, over the largest distance between any two of `runs`."""
    apart = _typical(one, other)
    spread = max(_typical(a, b) for a, b in combinations(runs, 2))
    if spread == 0.0:
        return 0.0 if apart == 0.0 else math.inf
    return apart / spread


def products_apart(one: Path, other: Path) -> float:
    """Frobenius norm of the difference of two adapters' products BA, relative to the second's."""
    a, b = load_file(one), load_file(other)
    if a.keys() != b.keys():
        raise RuntimeError(f"{one} and {other} hold different tensors")
    apart = whole = 0.0
    for key in a:
        if ".lora_A." not in key:
            continue
        b_key = key.replace(".lora_A.", ".lora_B.")
        product = b[b_key].double() @ b[key].double()
        apart += float((a[b_key].double() @ a[key].double() - product).square().sum())
        whole += float(product.square().sum())
    return math.sqrt(apart / whole)


def _typical(one: Sequence[float], other: Sequence[float]) -> float:
    squares = [((a - b) / b) ** 2 for a, b in zip(one, other, strict=True)]
    return math.sqrt(sum(squares) / len(squares))
