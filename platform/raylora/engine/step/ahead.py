"""Which product of a step fetches what the calls after it read, while memory would rest.

The product before it fetches what a call reads; where that one has no room for all, the products
before that do. So all is fetched in the order of its use, and as late as it can be: the second
cache holds less than a layer's adapters.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from raylora.engine.step.few_rows import FewRows
from raylora.lora.native import Call, Number, Reads


class Product(NamedTuple):
    """From the first `rows` of `x` [.., in] to those of `out` [.., out] by a linear layer."""

    layer: Any
    x: Tensor
    out: Tensor
    rows: Number


def calls_of(work: Sequence[Product | Call]) -> list[Call]:
    """The same as calls, with what each product fetches.

    What a product leaves to the layer is of all rows: `by_itself`.
    """
    found: list[Call] = []
    waiting = deque[Reads]()
    for one in reversed(work):
        if isinstance(one, Call):
            waiting.extend(reversed(one.reads))
            found.append(one)
            continue
        layer, x, out, rows = one
        few_rows: FewRows | None = vars(layer).get("forward")
        most = x.shape[0]
        if few_rows is None or most > few_rows.most:
            found.append(Call(by_itself, (layer, x, out)))
        else:
            found.append(few_rows.call(x, out, rows, _taken(waiting, few_rows, most)))
    return found[::-1]


def by_itself(layer: Any, x: Tensor, out: Tensor) -> None:
    """By the layer's own product, without its hooks."""
    bias: Tensor | None = layer.bias
    if type(layer) is nn.Linear and bias is None:
        torch.mm(x, layer.weight.t(), out=out)
    else:
        out.copy_(type(layer).forward(layer, x))


def _taken(waiting: deque[Reads], product: FewRows, rows: int) -> list[Reads]:
    """What a product has room for, of what is used last at the front of `waiting`."""
    taken: list[Reads] = []
    left = 1.0
    while waiting:
        reads = waiting[0]
        passes, size = product.room(rows, reads.slots.most)
        room = int(left * passes + 1e-6) * size
        if not room:
            break
        if reads.size <= room:
            taken.append(waiting.popleft())
            left -= -(-reads.size // size) / passes
        else:
            waiting[0], late = reads.parts(reads.size - room)
            taken.append(late)
            break
    return taken[::-1]
