"""What one worker of a training holds in memory, part by part, from the base's files alone.

Weights, adapter and optimizer state are counted; activations are an upper estimate: rows as long
as data.max_length allows, and 10 h + 4 i + heads * length numbers a token and layer, as measured
on packed rows (within 10 % for most shapes of models tried; rougher for very small ones).
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from raylora.config.data_spec import Packing
from raylora.config.lora_spec import LoraSpec
from raylora.config.model_spec import DType, ModelSource, ModelSpec, Quantization
from raylora.config.places import cache
from raylora.config.train_spec import TrainSpec
from raylora.config.training_spec import Optimizer

Shapes = Mapping[str, Sequence[int]]
"""Of the base's tensors, by name."""

FOUR_BITS = 0.5 + 4 / 64
"""Bytes a weight: 4 bits and one fp32 scale for every 64 of them."""
DOUBLE = 0.5 + 1 / 64 + 4 / (64 * 256)
"""The scales in 8 bits, with one fp32 scale for every 256 of those."""
MOMENTS = {
    Optimizer.ADAMW: 8,
    Optimizer.PAGED_ADAMW: 8,
    Optimizer.ADAMW_8BIT: 2,
    Optimizer.PAGED_ADAMW_8BIT: 2,
}
"""Bytes of both moments of a trained number."""

_LONG = 512
"""Attention holds no more than this much of a row's scores at once."""
_CHUNK = 2048
"""Positions whose logits exist at once."""


@dataclass(frozen=True)
class Footprint:
    """Bytes in one worker; `parameters` and `trained` are counts."""

    parameters: int
    trained: int
    weights: int
    adapter: int
    optimizer: int
    """fp32 gradients, fp32 copy of trained weights, moments."""
    activations: int
    """At most, with the largest micro-batch."""
    total: int

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


def measure(spec: TrainSpec, folder: Path) -> Footprint:
    """The footprint with the base that lies in a folder as safetensors with its config.json."""
    shapes = dict(
        entry for file in sorted(folder.glob("*.safetensors")) for entry in _shapes(file)
    )
    path = folder / "config.json"
    config: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    width = 4 if spec.model.dtype is DType.FP32 else 2
    trained = trained_numbers(spec.lora, shapes)
    workers, stage = spec.workers, spec.workers.zero_stage if spec.workers.uses_deepspeed else 0
    share = [1 / workers.least if stage >= least else 1.0 for least in (1, 2, 3)]
    stepped = MOMENTS[spec.training.optimizer] + (4 if width == 2 else 0)
    parts = {
        "weights": weight_bytes(spec.model, shapes) * share[2],
        "adapter": trained * width * share[2],
        "optimizer": trained * (stepped * share[0] + 4 * share[1]),
        "activations": _activations(spec, config, width),
    }
    whole = {name: int(size) for name, size in parts.items()}
    parameters = sum(prod(shape) for shape in shapes.values())
    return Footprint(parameters, trained, **whole, total=sum(whole.values()))


def weights_folder(model: ModelSpec) -> Path | None:
    """Where the base lies on this machine; None where it does not."""
    if model.source is ModelSource.PATH:
        folder = Path(model.id)
        return folder if folder.is_dir() else None
    for record in sorted((cache() / "models").glob("*/source.json")):
        if json.loads(record.read_text(encoding="utf-8")).get("id") == model.id:
            return record.parent
    return None


def weight_bytes(model: ModelSpec, shapes: Shapes) -> float:
    """Of the frozen base, with its linear layers as they are stored."""
    width = 4 if model.dtype is DType.FP32 else 2
    linear = {name: shape for name, shape in shapes.items() if _is_linear(name, shape)}
    numbers = sum(prod(shape) for shape in linear.values())
    match model.quantization:
        case Quantization.NONE:
            packed = float(numbers * width)
        case Quantization.INT8:
            packed = numbers + 4.0 * sum(shape[0] for shape in linear.values())
        case Quantization.NF4 | Quantization.FP4:
            packed = numbers * (DOUBLE if model.double_quant else FOUR_BITS)
    plain = sum(prod(shape) for name, shape in shapes.items() if name not in linear)
    return packed + plain * width


def trained_numbers(lora: LoraSpec, shapes: Shapes) -> int:
    """Numbers of the adapter: A and B, DoRA's magnitudes, modules in full."""
    count = 0
    for name, shape in shapes.items():
        layer = name.rpartition(".")[0]
        if any(f".{top}." in f".{layer}." for top in lora.modules_to_save):
            count += prod(shape)
        elif _is_linear(name, shape) and _is_target(lora, layer):
            count += _rank(lora, layer) * sum(shape) + (shape[0] if lora.use_dora else 0)
    return count


def _activations(spec: TrainSpec, config: Mapping[str, Any], width: int) -> float:
    hidden, inner = config.get("hidden_size", 0), config.get("intermediate_size", 0)
    layers, heads = config.get("num_hidden_layers", 0), config.get("num_attention_heads", 0)
    length, row = spec.data.max_length, spec.data.max_length
    if spec.data.packing is Packing.BEST_FIT:
        row = spec.data.pack_length or row
    tokens = row * min(spec.training.micro_batch_size, spec.training.global_batch_size)
    of_a_layer = 10 * hidden + 4 * inner + heads * min(length, _LONG)
    held = layers * of_a_layer
    if spec.training.activation_checkpointing:
        held = layers * hidden + of_a_layer
    logits = min(tokens, _CHUNK) * config.get("vocab_size", 0)
    return (tokens * held + logits) * width


def _is_linear(name: str, shape: Sequence[int]) -> bool:
    return len(shape) == 2 and "embed" not in name and "lm_head" not in name


def _is_target(lora: LoraSpec, layer: str) -> bool:
    names = lora.named_targets
    return names == ("all-linear",) or layer.rpartition(".")[2] in names


def _rank(lora: LoraSpec, layer: str) -> int:
    """Of the patterns the most exact counts."""
    fitting = [end for end in lora.rank_pattern if f".{layer}".endswith(f".{end}")]
    return lora.rank_pattern[max(fitting, key=lambda end: end.count("."))] if fitting else lora.r


def _shapes(file: Path) -> list[tuple[str, list[int]]]:
    """Read names and shapes from a safetensors header: 8 bytes of length, then JSON."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    return [(name, entry["shape"]) for name, entry in header.items() if name != "__metadata__"]
