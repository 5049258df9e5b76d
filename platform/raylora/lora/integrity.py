"""Is this directory a whole, sane adapter? Asked before it is registered and before it is loaded.

Names, sizes, config and the header of the weights are checked before any weight is read, so that a
hostile or damaged directory costs neither time nor memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from raylora.errors import InvalidAdapter
from raylora.lora import adapter_config, manifest
from raylora.lora.adapter_config import CONFIG, WEIGHTS, AdapterConfig
from raylora.lora.base import linear_shapes_of, parameter_shapes_of
from raylora.lora.weights import BaseShapes, check, is_finite, names

__all__ = ["AdapterFacts", "check_values", "is_finite", "names", "verify"]

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}


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
    content: str
    """Of all that its numbers come from, weights and config; empty without a manifest."""
    base: str | None
    base_revision: str | None
    lineage: Mapping[str, Any]
    alone_because: str = ""
    """Why it cannot share a batch with others, and is served merged; empty where it can."""

    @property
    def system_prompt(self) -> str | None:
        """What it was trained with, from its lineage; offered to clients, never added by us."""
        return self._told("data", "system_prompt")

    @property
    def quantization(self) -> str | None:
        """What its base was stored in when it was trained, from its lineage."""
        return self._told("quantization")

    def _told(self, *keys: str) -> str | None:
        value: Any = self.lineage
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, str) else None


def verify(
    directory: Path,
    *,
    base_config: PretrainedConfig | None = None,
    linears: Mapping[str, tuple[int, int]] | None = None,
    base_revision: str | None = None,
    manifest_required: bool = True,
    alone: bool = False,
    values: bool = True,
) -> AdapterFacts:
    """Check an adapter directory; raise InvalidAdapter naming the first fault.

    With `base_config`, or the base's `linears` (name to (out, in)), the layers must be those of
    that base, each with its shape; with `base_revision`, the lineage must not name another one. An
    adapter of another tool has no manifest; manifest_required=False takes it without hashes.
    One that cannot share a batch with others (DoRA, modules saved in full) is taken with `alone`.
    Without `values` the weights are not read but for their hash; who loads them checks them.
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
    if config.alone_because and not alone:
        raise InvalidAdapter(
            f"{directory}: cannot share a batch with other adapters: {config.alone_because}",
            hint="merge it into its base, and serve that",
        )
    shapes = BaseShapes(linears)
    if base_config is not None:
        shapes = BaseShapes(linear_shapes_of(base_config), parameter_shapes_of(base_config))
    found = check(directory / WEIGHTS, config, shapes, values=values)
    return AdapterFacts(
        r=max(config.rank(layer) for layer in found.layers),
        alpha=config.lora_alpha,
        targets=tuple(sorted({layer.rpartition(".")[2] for layer in found.layers})),
        layers=len(found.layers),
        parameters=found.parameters,
        dtype=found.dtype,
        bytes=(directory / WEIGHTS).stat().st_size,
        sha256=record.files[WEIGHTS].sha256 if record else "",
        content="".join(record.files[name].sha256 for name in (WEIGHTS, CONFIG)) if record else "",
        base=base.get("id", config.base_model_name_or_path),
        base_revision=trained_on or config.revision,
        lineage=lineage,
        alone_because=config.alone_because,
    )


def check_values(directory: Path, config: AdapterConfig) -> None:
    """Read every weight of a directory whose shapes are right; raise InvalidAdapter at a fault."""
    check(directory / WEIGHTS, config, BaseShapes())


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
    for name in (WEIGHTS, CONFIG):
        if name not in record.files:
            raise InvalidAdapter(f"{directory}: there is no {name}")
    return record


def _base(lineage: Mapping[str, Any]) -> dict[str, Any]:
    base = lineage.get("base")
    return base if isinstance(base, dict) else {}
