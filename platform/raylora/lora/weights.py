"""adapter_model.safetensors against its config and base: keys, shapes, dtype, then values."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from raylora.errors import InvalidAdapter
from raylora.lora.adapter_config import AdapterConfig, ends_with, lies_in

PREFIX = "base_model.model."
"""What PEFT puts before a layer's name."""

_DTYPES = ("BF16", "F16", "F32")
_MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True)
class BaseShapes:
    """What is known of the base; None is not known."""

    linears: Mapping[str, tuple[int, int]] | None = None
    """(out, in) of each linear layer but the head, by name."""
    parameters: Mapping[str, tuple[int, ...]] | None = None
    """Shape of every parameter, by name."""


@dataclass(frozen=True)
class Contents:
    """What a weights file was found to hold."""

    layers: list[str]
    """Adapted linear layers."""
    dtype: str
    parameters: int


def check(path: Path, config: AdapterConfig, base: BaseShapes, *, values: bool = True) -> Contents:
    """Raise InvalidAdapter naming the first fault; no weight is read before all shapes are right.

    Every targeted layer must have its matrices, every module saved in full its parameters, and
    nothing else may be there. Without `values` no weight is read at all.
    """
    if path.is_symlink():
        raise InvalidAdapter(f"{path.parent}: {path.name} is not a regular file")
    if not path.is_file():
        raise InvalidAdapter(f"{path.parent}: there is no {path.name}")
    _check_header_size(path)
    try:
        with safe_open(path, framework="pt") as weights:
            slices = {key: weights.get_slice(key) for key in _keys(weights)}
            found = {key: tuple(part.get_shape()) for key, part in slices.items()}
            dtypes = {part.get_dtype() for part in slices.values()}
            saved = {key for key in found if config.saves(module_of(key))}
            layers = _check_keys(path, set(found) - saved, config, base)
            _check_shapes(path, layers, found, config, base)
            _check_saved(path, {key: found[key] for key in saved}, config, base)
            if len(dtypes) != 1 or not dtypes.issubset(_DTYPES):
                raise InvalidAdapter(
                    f"{path}: tensors are {', '.join(sorted(dtypes))}, not one of "
                    f"{', '.join(_DTYPES)}"
                )
            if values:
                _check_values(path, weights, list(found))
    except SafetensorError as error:
        raise InvalidAdapter(f"{path}: not a whole safetensors file: {error}") from error
    return Contents(layers, dtypes.pop(), sum(prod(shape) for shape in found.values()))


def names(layer: str) -> tuple[str, str]:
    """Keys of a layer's A [r, in] and B [out, r] in the weights file."""
    return f"{PREFIX}{layer}.lora_A.weight", f"{PREFIX}{layer}.lora_B.weight"


def is_finite(tensor: Tensor) -> bool:
    """No NaN, no infinity. A finite sum proves it, in one pass without a copy."""
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def module_of(key: str) -> str:
    """The module of the base that a tensor saved in full belongs to."""
    return key.removeprefix(PREFIX).rpartition(".")[0]


def _magnitude(layer: str) -> str:
    """Key of a layer's DoRA magnitudes [out]."""
    return f"{PREFIX}{layer}.lora_magnitude_vector"


def _keys(weights: Any) -> list[str]:
    return list(weights.keys())  # an open file is no mapping: it cannot be iterated


def _check_header_size(path: Path) -> None:
    with path.open("rb") as handle:
        header = int.from_bytes(handle.read(8), "little")
    if header > _MAX_HEADER_BYTES:
        raise InvalidAdapter(f"{path}: a header of {header} bytes is not that of an adapter")


def _check_keys(path: Path, found: set[str], config: AdapterConfig, base: BaseShapes) -> list[str]:
    """Require the matrices of every targeted layer and nothing else. Returns the layers' names.

    Without a base the layers are those the file itself names, of which each must be targeted.
    """
    if not found:
        raise InvalidAdapter(f"{path}: holds no tensors")
    layers = sorted(
        {key.removeprefix(PREFIX).rpartition(".lora_")[0] for key in found}
        if base.linears is None
        else base.linears
    )
    of_base = "" if base.linears is None else "; the base has no such layer"
    targeted = [layer for layer in layers if config.targets(layer)]
    expected = {key for layer in targeted for key in names(layer)}
    if config.use_dora:
        expected |= {_magnitude(layer) for layer in targeted}
    if missing := sorted(expected - found):
        raise InvalidAdapter(
            f"{path}: {len(missing)} of {len(expected)} tensors are missing, such as {missing[0]}"
        )
    if extra := sorted(found - expected):
        raise InvalidAdapter(f"{path}: unexpected tensor {extra[0]}{of_base}")
    for target in config.target_modules:
        if not any(ends_with(layer, target) for layer in targeted):
            raise InvalidAdapter(f"{path}: target module {target} has no tensors{of_base}")
    return targeted


def _check_shapes(
    path: Path,
    layers: list[str],
    found: Mapping[str, tuple[int, ...]],
    config: AdapterConfig,
    base: BaseShapes,
) -> None:
    for layer in layers:
        key_a, key_b = names(layer)
        if len(found[key_a]) != 2 or len(found[key_b]) != 2:
            raise InvalidAdapter(f"{path}: {key_a} and {key_b} are not both matrices")
        rank = config.rank(layer)
        itself = (found[key_b][0], found[key_a][1])
        wide, tall = itself if base.linears is None else base.linears[layer]
        wanted: dict[str, tuple[int, ...]] = {key_a: (rank, tall), key_b: (wide, rank)}
        if config.use_dora:
            wanted[_magnitude(layer)] = (wide,)
        for key, shape in wanted.items():
            _require(path, key, found[key], shape)


def _check_saved(
    path: Path,
    saved: Mapping[str, tuple[int, ...]],
    config: AdapterConfig,
    base: BaseShapes,
) -> None:
    """Modules in full: all of their parameters, in the base's shapes."""
    for top in config.modules_to_save or []:
        if not any(lies_in(module_of(key), top) for key in saved):
            raise InvalidAdapter(f"{path}: module {top} has no tensors")
    if base.parameters is None:
        return
    wanted = {
        f"{PREFIX}{name}": shape
        for name, shape in base.parameters.items()
        if config.saves(name.rpartition(".")[0])
    }
    if missing := sorted(wanted.keys() - saved.keys()):
        raise InvalidAdapter(f"{path}: {missing[0]} is missing")
    for key, shape in saved.items():
        if key not in wanted:
            raise InvalidAdapter(
                f"{path}: unexpected tensor {key}; the base has no such parameter"
            )
        _require(path, key, shape, wanted[key])


def _require(path: Path, key: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted or 0 in wanted:
        raise InvalidAdapter(
            f"{path}: {key} has shape {list(found)}, config and base ask for {list(wanted)}"
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
