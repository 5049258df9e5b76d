"""Only the frozen base's products of a pass: `python -m benchmarks.sweep.core_products JSON`.

{"tokens": N, "labelled": M, "threads": T, "passes": P}: x W' and g W of every linear layer for N
tokens, of the output head for M. Prints {"seconds": S} for each pass after one to warm up.
"""

import json
import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from raylora.config.model_spec import ModelSpec
from raylora.config.places import cache
from raylora.lora.base import compute_dtype, load_base
from raylora.lora.devices import pick
from raylora.lora.sources import fetch


def main() -> None:
    """Measure as told."""
    told: dict[str, int] = json.loads(sys.argv[1])
    torch.set_num_threads(told["threads"])
    base = load_base(fetch(ModelSpec(), cache()), ModelSpec(), pick())
    head = base.get_output_embeddings()
    weights = [
        (module.weight, told["labelled"] if module is head else told["tokens"])
        for module in base.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    random = torch.randn(told["tokens"], max(max(w.shape) for w, _ in weights))
    for number in range(1 + told["passes"]):
        seconds = _pass(weights, random.to(compute_dtype(base)))
        if number:
            sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")
            sys.stdout.flush()


@torch.no_grad()
def _pass(weights: Sequence[tuple[Tensor, int]], random: Tensor) -> float:
    spent = 0.0
    for weight, rows in weights:
        wide, long = weight.shape
        x, g = random[:rows, :long].contiguous(), random[:rows, :wide].contiguous()
        began = time.perf_counter()
        torch.mm(x, weight.t())
        torch.mm(g, weight)
        spent += time.perf_counter() - began
    return spent


if __name__ == "__main__":
    main()
