"""Which parameters share a learning rate and a weight decay."""

from collections.abc import Mapping
from typing import TypedDict

from torch import nn

from raylora.config.lora_spec import LoraSpec


class ParameterGroup(TypedDict):
    """A group as optimizers take it; the schedule multiplies its rate by `lr_scale`."""

    params: list[nn.Parameter]
    lr_scale: float
    weight_decay: float


def parameter_groups(
    parameters: Mapping[str, nn.Parameter], lora: LoraSpec, weight_decay: float
) -> list[ParameterGroup]:
    """Every parameter that is trained in one group, in their order.

    B learns `loraplus_lr_ratio` times as fast as the rest (LoRA+). Vectors (DoRA's magnitudes,
    norms and biases saved in full) do not decay: nothing but their size would be lost.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            scale = lora.loraplus_lr_ratio if ".lora_B." in name else 1.0
            # Partitioned by ZeRO 3 a parameter is empty and keeps its shape beside it.
            shape = getattr(parameter, "ds_shape", parameter.shape)
            decay = weight_decay if len(shape) > 1 else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
    return [
        ParameterGroup(params=params, lr_scale=scale, weight_decay=decay)
        for (scale, decay), params in groups.items()
    ]
