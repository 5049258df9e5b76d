"""Is this directory a whole, sane adapter? Asked before it is registered and before it is loaded.

Names, sizes, config and the header of the weights are checked before any weight is read, so that a
hostile or damaged directory costs neither time nor memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PretrainedConfig

from raylora.errors import InvalidAdapter
from raylora.lora import adapter_config, manifest
from raylora.lora.adapter_config import CONFIG, WEIGHTS, AdapterConfig
from raylora.lora.base import linear_shapes_of

PREFIX = "base_model.model."
"""What PEFT puts before a layer's name."""

_DTYPES = ("BF16", "F16", "F32")
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
_MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True)
class AdapterFacts:
    """What a checked adapter is."""

    r: int
    """Largest rank of any layer."""
    alpha: float
    targets: tuple[str, ...]
    layers: int
    """Adapted linear layers."""
    parameters: int
    dtype: str
    bytes: int
    """Size of the weights file."""
    sha256: str
    """Of the weights file; empty without a manifest."""
    base: str | None
    base_revision: str | None
    lineage: Mapping[str, Any]


def verify(
    directory: Path,
    *,
    base_config: PretrainedConfig | None = None,
    linears: Mapping[str, tuple[int, int]] | None = None,
    base_revision: str | None = None,
    manifest_required: bool = True,
) -> AdapterFacts:
    """Check an adapter directory; raise InvalidAdapter naming the first fault.

    With `base_config`, or the base's `linears` (name to (out, in)), the layers must be those of
    that base, each with its shape; with `base_revision`, the lineage must not name another one. An
    adapter of another tool has no manifest; manifest_required=False takes it without hashes.
    """
    if not directory.is_dir():
        raise InvalidAdapter(f"{directory} is not a directory")
    _refuse_pickles(directory)
    record = _checked_manifest(directory, manifest_required)
    lineage = record.lineage if record else {}
    base = _base(lineage)
    trained_on = base.get("revision")
    if base_revision is not None and trained_on not in (None, base_revision):
        raise InvalidAdapter(
            f"{directory}: trained on {base.get('id')} at {trained_on}, "
            f"but this base is at {base_revision}",
            hint="serve it on the base that it was trained on",
        )
    config = adapter_config.read(directory / CONFIG)
    if linears is None and base_config is not None:
        linears = linear_shapes_of(base_config)
    layers, dtype, parameters = _check_weights(directory / WEIGHTS, config, linears)
    return AdapterFacts(
        r=max(config.rank(layer) for layer in layers),
        alpha=config.lora_alpha,
        targets=tuple(sorted({layer.rpartition(".")[2] for layer in layers})),
        layers=len(layers),
        parameters=parameters,
        dtype=dtype,
        bytes=(directory / WEIGHTS).stat().st_size,
        sha256=record.files[WEIGHTS].sha256 if record else "",
        base=base.get("id", config.base_model_name_or_path),
        base_revision=trained_on or config.revision,
        lineage=lineage,
    )


def names(layer: str) -> tuple[str, str]:
    """Keys of a layer's A [r, in] and B [out, r] in the weights file."""
    return f"{PREFIX}{layer}.lora_A.weight", f"{PREFIX}{layer}.lora_B.weight"


def is_finite(tensor: Tensor) -> bool:
    """No NaN, no infinity. A finite sum proves it, in one pass without a copy."""
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def _refuse_pickles(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.suffix in _PICKLES:
            raise InvalidAdapter(
                f"{path}: pickled weights can run code when they are read",
                hint=f"save the adapter as {WEIGHTS}",
            )


def _checked_manifest(directory: Path, required: bool) -> manifest.Manifest | None:
    if not required and not (directory / manifest.NAME).exists():
        return None
    if fault := manifest.find_fault(directory):
        raise InvalidAdapter(
            f"{directory}: {fault}", hint="fetch the adapter again, or train it again"
        )
    record = manifest.read(directory)
    if WEIGHTS not in record.files:
        raise InvalidAdapter(f"{directory}: there is no {WEIGHTS}")
    return record


def _base(lineage: Mapping[str, Any]) -> dict[str, Any]:
    base = lineage.get("base")
    return base if isinstance(base, dict) else {}


def _check_weights(
    path: Path, config: AdapterConfig, linears: Mapping[str, tuple[int, int]] | None
) -> tuple[list[str], str, int]:
    """Check keys, shapes, dtypes, then values. Returns layers, dtype, number of parameters."""
    if path.is_symlink() or not path.is_file():
        raise InvalidAdapter(f"{path.parent}: there is no {path.name}")
    _check_header_size(path)
    try:
        with safe_open(path, framework="pt") as weights:
            keys = list(weights.keys())
            layers = _check_keys(path, keys, config, linears)
            slices = {key: weights.get_slice(key) for key in keys}
            shapes = {key: tuple(slices[key].get_shape()) for key in keys}
            dtypes = {slices[key].get_dtype() for key in keys}
            _check_shapes(path, layers, shapes, config, linears)
            if len(dtypes) != 1 or not dtypes.issubset(_DTYPES):
                raise InvalidAdapter(
                    f"{path}: tensors are {', '.join(sorted(dtypes))}, not one of "
                    f"{', '.join(_DTYPES)}"
                )
            _check_values(path, weights, keys)
    except SafetensorError as error:
        raise InvalidAdapter(f"{path}: not a whole safetensors file: {error}") from error
    return layers, dtypes.pop(), sum(a * b for a, b in shapes.values())


def _check_header_size(path: Path) -> None:
    with path.open("rb") as handle:
        header = int.from_bytes(handle.read(8), "little")
    if header > _MAX_HEADER_BYTES:
        raise InvalidAdapter(f"{path}: a header of {header} bytes is not that of an adapter")


def _check_keys(
    path: Path,
    keys: list[str],
    config: AdapterConfig,
    linears: Mapping[str, tuple[int, int]] | None,
) -> list[str]:
    """Require A and B of every targeted layer and nothing else. Returns the layers' names.

    Without a base the layers are those the file itself names, of which each must be targeted.
    """
    if not keys:
        raise InvalidAdapter(f"{path}: holds no tensors")
    found = set(keys)
    layers = sorted(
        {key.removeprefix(PREFIX).rpartition(".lora_")[0] for key in keys}
        if linears is None
        else linears
    )
    of_base = "" if linears is None else "; the base has no such layer"
    targeted = [layer for layer in layers if config.targets(layer)]
    expected = {key for layer in targeted for key in names(layer)}
    if missing := sorted(expected - found):
        raise InvalidAdapter(
            f"{path}: {len(missing)} of {len(expected)} tensors are missing, such as {missing[0]}"
        )
    if extra := sorted(found - expected):
        raise InvalidAdapter(f"{path}: unexpected tensor {extra[0]}{of_base}")
    for target in config.target_modules:
        if not any(layer == target or layer.endswith(f".{target}") for layer in targeted):
            raise InvalidAdapter(f"{path}: target module {target} has no tensors{of_base}")
    return targeted


def _check_shapes(
    path: Path,
    layers: list[str],
    shapes: Mapping[str, tuple[int, ...]],
    config: AdapterConfig,
    linears: Mapping[str, tuple[int, int]] | None,
) -> None:
    for layer in layers:
        key_a, key_b = names(layer)
        if len(shapes[key_a]) != 2 or len(shapes[key_b]) != 2:
            raise InvalidAdapter(f"{path}: {key_a} and {key_b} are not both matrices")
        rank = config.rank(layer)
        wide, tall = (shapes[key_b][0], shapes[key_a][1]) if linears is None else linears[layer]
        for key, wanted in ((key_a, (rank, tall)), (key_b, (wide, rank))):
            if shapes[key] != wanted or 0 in wanted:
                raise InvalidAdapter(
                    f"{path}: {key} has shape {list(shapes[key])}, "
                    f"config and base ask for {list(wanted)}"
                )


def _check_values(path: Path, weights: Any, keys: list[str]) -> None:
    """Read one tensor at a time: all finite, and not every B zero, as in an untrained adapter."""
    trained = False
    for key in keys:
        tensor: Tensor = weights.get_tensor(key)
        if not is_finite(tensor):
            raise InvalidAdapter(f"{path}: {key} holds NaN or infinite values")
        trained = trained or (".lora_B." in key and bool(tensor.any()))
    if not trained:
        raise InvalidAdapter(
            f"{path}: every lora_B is zero, so the adapter does nothing",
            hint="it was saved untrained, or its tensors were sharded and not gathered",
        )
