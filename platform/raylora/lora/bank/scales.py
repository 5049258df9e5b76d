"""What each row's B A x is multiplied with, where a layer's scale is not 1 for all of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from raylora.lora.bank.layout import Weights


def row_scales(
    rows: Mapping[str, Sequence[int]],
    adapters: Mapping[str, Weights],
    order: Sequence[int],
    device: torch.device,
) -> dict[str, Tensor]:
    """Layer to the scales of the batch rows `order`, [rows] in fp32.

    rows: adapter to its batch rows. Layers with the same scales share one tensor.
    """
    owner = {row: adapters[key].scales for key, own in rows.items() for row in own}
    made: dict[tuple[float, ...], Tensor] = {}
    found: dict[str, Tensor] = {}
    for layer in {layer for weights in adapters.values() for layer in weights.scales}:
        values = tuple(owner[row].get(layer, 1.0) for row in order)
        if values not in made:
            made[values] = torch.tensor(values, dtype=torch.float32, device=device)
        found[layer] = made[values]
    return found
