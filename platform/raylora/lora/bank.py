"""Many adapters on one base; one forward pass serves rows of any mixture, the base included.

    bank = Bank(model)
    bank.add("fr@3", directory)
    with bank.rows(["fr@3", None]):
        model(...)  # row 0 through the adapter, row 1 through the base alone

Numbers equal PEFT's for each row. For one thread and for inference: outputs are changed in place.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from raylora.errors import InvalidAdapter, NotFound, RayloraError
from raylora.lora import adapter_config, integrity
from raylora.lora.adapter_config import CONFIG, WEIGHTS
from raylora.lora.base import compute_dtype, linear_shapes
from raylora.lora.integrity import AdapterFacts
from raylora.lora.stacks import Plan, Stacks, Weights

_PLANS = 8
"""Compositions remembered: the running batch, and prompts that join it in between."""


class Bank:
    """Adapters by key, and the hooks that add them to the base's linear layers."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        base_revision: str | None = None,
        max_adapters: int | None = None,
        max_r: int = adapter_config.MAX_RANK,
    ) -> None:
        """Install on every linear layer but the output head.

        With `base_revision`, adapters whose lineage names another revision are refused.
        """
        self._shapes = linear_shapes(model)
        self._dtype = compute_dtype(model)
        self._device = model.device
        self._base_revision = base_revision
        self._max_adapters = max_adapters
        self._max_r = max_r
        self._adapters: dict[str, Weights] = {}
        self._pins: Counter[str] = Counter()
        self._stacks = Stacks(self._shapes, self._dtype, self._device)
        self._plans: OrderedDict[tuple[str | None, ...], Plan] = OrderedDict()
        self._plan: Plan | None = None
        self._hooks = [
            model.get_submodule(layer).register_forward_hook(self._hook(layer))
            for layer in self._shapes
        ]

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all adapters, oldest first."""
        return tuple(self._adapters)

    @property
    def bytes(self) -> int:
        """Memory of all adapters, without the stacks of the running batch."""
        return sum(weights.bytes for weights in self._adapters.values())

    def add(self, key: str, directory: Path, *, manifest_required: bool = True) -> AdapterFacts:
        """Check an adapter directory and load it. InvalidAdapter leaves the bank as it was."""
        if key in self._adapters:
            raise InvalidAdapter(f"{key} is loaded already", hint="remove it first")
        if self._max_adapters is not None and len(self._adapters) >= self._max_adapters:
            raise InvalidAdapter(
                f"{key}: the bank is full with {self._max_adapters} adapters",
                hint="remove one, or raise the limit",
            )
        facts = integrity.verify(
            directory,
            linears=self._shapes,
            base_revision=self._base_revision,
            manifest_required=manifest_required,
        )
        if facts.r > self._max_r:
            raise InvalidAdapter(f"{directory}: rank {facts.r} is over the limit of {self._max_r}")
        self._adapters[key] = self._load(directory)
        return facts

    def remove(self, key: str) -> None:
        """Drop an adapter. Refused while it is pinned or in the running batch."""
        self._require(key)
        if self._pins[key] or (self._plan is not None and key in self._plan.adapters):
            raise RayloraError(f"{key} is in use", hint="remove it when its requests are done")
        del self._adapters[key]
        self._stacks.table.forget(key)
        self._plans.clear()

    def pin(self, key: str) -> None:
        """Keep an adapter from being removed until it is unpinned as often as pinned."""
        self._require(key)
        self._pins[key] += 1

    def unpin(self, key: str) -> None:
        """Undo one `pin`."""
        assert self._pins[key] > 0
        self._pins[key] -= 1

    @contextmanager
    def rows(self, keys: Sequence[str | None]) -> Iterator[None]:
        """Serve batch row i of the forward passes inside with adapter keys[i]; None is the base.

        Raises NotFound for a key that is not in the bank.
        """
        assert self._plan is None, "rows() inside rows()"
        plan = self._plan_for(tuple(keys))
        if plan is None:
            yield
            return
        self._plan = plan
        try:
            yield
        finally:
            self._plan = None
            plan.leave()

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _plan_for(self, keys: tuple[str | None, ...]) -> Plan | None:
        if plan := self._plans.get(keys):
            self._plans.move_to_end(keys)
            return plan
        named = dict.fromkeys(key for key in keys if key is not None)
        for key in named:
            self._require(key)
        if not named:
            return None
        plan = Plan(keys, {key: self._adapters[key] for key in named}, self._stacks)
        self._plans[keys] = plan
        if len(self._plans) > _PLANS:
            self._plans.popitem(last=False)
        return plan

    def _hook(self, layer: str) -> Any:
        def add_adapters(module: torch.nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            plan = self._plan
            if plan is not None and layer in plan.layers:
                plan.add(layer, args[0], out)

        return add_adapters

    def _load(self, directory: Path) -> Weights:
        config = adapter_config.read(directory / CONFIG)
        tensors = load_file(directory / WEIGHTS)
        a: dict[str, Tensor] = {}
        b: dict[str, Tensor] = {}
        scales: dict[str, float] = {}
        for layer in filter(config.targets, self._shapes):
            key_a, key_b = integrity.names(layer)
            power, scale = _split(config.scale(layer))
            # clone: tensors of a safetensors file may be views of the mapped file
            a[layer] = tensors[key_a].to(self._device, self._dtype).clone()
            b[layer] = (tensors[key_b].T * power).to(self._device, self._dtype).contiguous()
            if not (integrity.is_finite(a[layer]) and integrity.is_finite(b[layer])):
                raise InvalidAdapter(f"{directory}: {layer} overflows in {self._dtype}")
            if scale != 1:
                scales[layer] = scale
        return Weights(max(t.shape[0] for t in a.values()), a, b, scales)

    def _require(self, key: str) -> None:
        if key not in self._adapters:
            loaded = ", ".join(self._adapters) or "none"
            raise NotFound(f"adapter {key} is not loaded", hint=f"loaded: {loaded}")


def _split(scale: float) -> tuple[float, float]:
    """A factor for B, and what is left. Only a power of two changes no rounding on the way."""
    return (scale, 1.0) if math.frexp(scale)[0] == 0.5 else (1.0, scale)
