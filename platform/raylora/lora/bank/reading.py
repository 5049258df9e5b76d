"""An adapter directory read, checked and converted to what the bank holds: on any thread."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raylora.errors import InvalidAdapter
from raylora.lora import adapter_config, integrity
from raylora.lora.adapter_config import CONFIG, WEIGHTS, AdapterConfig
from raylora.lora.bank.layout import Layout, Layouts, Weights
from raylora.lora.integrity import AdapterFacts

_SERIAL = 32_736
"""Elements that torch still takes in one thread. Several wait for the cores on which others work:
a sum of 5 million by two took 14 ms beside other work, 1 where there was none, 2.5 in pieces.
"""
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Prepared:
    """A checked adapter in host memory, for the bank to admit."""

    directory: Path
    facts: AdapterFacts
    weights: Weights


class Reader:
    """Reads adapters of one base into its compute dtype, or leaves them in bf16."""

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        dtype: torch.dtype,
        base_revision: str | None,
        max_r: int,
        *,
        pinned: bool,
        leave_bf16: bool,
    ) -> None:
        """`pinned` memory can be copied to a GPU without a wait.

        leave_bf16: of a file in bf16 every number is left as it is, where the dtype is fp32.
        """
        self._shapes = shapes
        self._dtype = dtype
        self._base_revision = base_revision
        self._max_r = max_r
        self._pinned = pinned
        self._leave_bf16 = leave_bf16
        self._layouts = Layouts(shapes)

    def read(self, directory: Path, *, manifest_required: bool) -> Prepared:
        """Check and load. Raises InvalidAdapter; a weight is read twice, once for its hash."""
        facts = integrity.verify(
            directory,
            linears=self._shapes,
            base_revision=self._base_revision,
            manifest_required=manifest_required,
            values=False,
        )
        if facts.r > self._max_r:
            raise InvalidAdapter(f"{directory}: rank {facts.r} is over the limit of {self._max_r}")
        config = adapter_config.read(directory / CONFIG)
        return Prepared(directory, facts, self._weights(directory, config))

    def _weights(self, directory: Path, config: AdapterConfig) -> Weights:
        layout = self._layout(config)
        tensors = mapped(directory / WEIGHTS)
        dtype = self._kept({tensor.dtype for tensor in tensors.values()})
        ranks = {layer: config.rank(layer) for layer in layout.shapes}
        flat = torch.empty(layout.size, dtype=dtype, pin_memory=self._pinned)
        if any(rank < layout.rank for rank in ranks.values()):
            flat.zero_()
        scales: dict[str, float] = {}
        for layer, rank in ranks.items():
            key_a, key_b = integrity.names(layer)
            power, scale = _split(config.scale(layer))
            layout.first_rows_of_a(flat, layer, rank).copy_(tensors[key_a])
            torch.mul(tensors[key_b].T, power, out=layout.first_rows_of_b(flat, layer, rank))
            if scale != 1:
                scales[layer] = scale
        self._check_values(directory, config, layout, flat)
        return Weights(layout, flat, ranks, scales)

    def _check_values(
        self, directory: Path, config: AdapterConfig, layout: Layout, flat: Tensor
    ) -> None:
        """All at once; only where something is wrong, layer by layer for what to say."""
        trained = any(bool(layout.b(flat, layer).any()) for layer in layout.shapes)
        if trained and all(map(integrity.is_finite, flat.split(_SERIAL))):
            return
        integrity.check_values(directory, config)
        for layer in layout.shapes:
            finite = map(integrity.is_finite, (layout.a(flat, layer), layout.b(flat, layer)))
            if not all(finite):
                raise InvalidAdapter(f"{directory}: {layer} overflows in {self._dtype}")

    def _kept(self, found: set[torch.dtype]) -> torch.dtype:
        """What an adapter is kept in whose file has these formats."""
        return torch.bfloat16 if self._leave_bf16 and found == {torch.bfloat16} else self._dtype

    def _layout(self, config: AdapterConfig) -> Layout:
        layers = tuple(filter(config.targets, self._shapes))
        return self._layouts.of(layers, max(map(config.rank, layers), default=1))


def mapped(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file that was checked, as views of it: nothing is copied.

    safe_open takes 60 us a tensor, 25 ms for the 420 of SmolLM2 with all layers adapted.
    """
    content = torch.from_file(str(path), size=path.stat().st_size, dtype=torch.uint8)
    length = int.from_bytes(content[:8].numpy().tobytes(), "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length].numpy().tobytes())
    header.pop("__metadata__", None)
    data = content[8 + length :]
    if data.storage_offset() % 8:  # files of other tools: the header is padded since 0.3
        data = data.clone()
    return {
        name: data[slice(*entry["data_offsets"])]
        .view(_DTYPES[entry["dtype"]])
        .view(entry["shape"])
        for name, entry in header.items()
    }


def _split(scale: float) -> tuple[float, float]:
    """A factor for B, and what is left. Only a power of two changes no rounding on the way."""
    return (scale, 1.0) if math.frexp(scale)[0] == 0.5 else (1.0, scale)
