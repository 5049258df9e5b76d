"""Many adapters on one base; one forward pass serves rows of any mixture, the base included.

    bank = Bank(model)
    bank.add("fr@3", directory)
    with bank.rows(["fr@3", None]):
        model(...)  # row 0 through the adapter, row 1 through the base alone

Numbers equal PEFT's for each row. For one thread and for inference: outputs are changed in place.
Only `prepare` may run on another thread, so that a load does not hold up the forward passes.
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from raylora.errors import InvalidAdapter, NotFound, RayloraError
from raylora.lora import adapter_config
from raylora.lora.bank import kernel
from raylora.lora.bank.eviction import Held, Tier, victims
from raylora.lora.bank.layout import Weights
from raylora.lora.bank.plan import Plan
from raylora.lora.bank.reading import Prepared, Reader
from raylora.lora.bank.stacks import Stacks
from raylora.lora.base import compute_dtype, linear_shapes
from raylora.lora.integrity import AdapterFacts

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
        max_bytes: int | None = None,
        max_r: int = adapter_config.MAX_RANK,
    ) -> None:
        """Install on every linear layer but the output head.

        With `base_revision`, adapters whose lineage names another revision are refused. With
        `max_bytes` of host memory, adapters used longest ago make room for new ones.
        """
        shapes = linear_shapes(model)
        dtype, device = compute_dtype(model), model.device
        self._reader = Reader(
            shapes,
            dtype,
            base_revision,
            max_r,
            pinned=device.type == "cuda",
            leave_bf16=device.type == "cpu" and kernel.load(dtype, torch.bfloat16) is not None,
        )
        self._max_adapters = max_adapters
        self._max_bytes = max_bytes
        self._adapters: OrderedDict[str, Weights] = OrderedDict()
        """From the one used longest ago on."""
        self._directories: dict[str, Path] = {}
        """Of every adapter that was added and not removed, in memory or not."""
        self._stamps: dict[str, Hashable] = {}
        self._admitted = count()
        self._pins: Counter[str] = Counter()
        self._stacks = Stacks(dtype, device)
        self._plans: OrderedDict[tuple[str | None, ...], Plan] = OrderedDict()
        self._plan: Plan | None = None
        self._hooks = [
            model.get_submodule(layer).register_forward_hook(self._hook(layer)) for layer in shapes
        ]

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all adapters in memory, from the one used longest ago on."""
        return tuple(self._adapters)

    @property
    def bytes(self) -> int:
        """Host memory of all adapters, without the slots of the running batch."""
        return sum(weights.bytes for weights in self._adapters.values())

    @property
    def device_bytes(self) -> int:
        """Memory of the slots, on the device."""
        return self._stacks.bytes

    def tier(self, key: str) -> Tier:
        """The fastest tier that holds an adapter; on any thread.

        Raises NotFound where it was never added.
        """
        if key in self._adapters:
            return Tier.DEVICE if self._stacks.holds(key) else Tier.HOST
        if key in self._directories:
            return Tier.DISK
        raise self._missing(key)

    def stamp(self, key: str) -> Hashable:
        """The same only for the same adapter: where a key comes back with other files, another.

        Without a manifest every load has its own. Raises NotFound for a key not in memory.
        """
        self._require(key)
        return self._stamps[key]

    def add(self, key: str, directory: Path, *, manifest_required: bool = True) -> AdapterFacts:
        """Check an adapter directory and load it. InvalidAdapter leaves the bank as it was."""
        self._check_free(key)
        prepared = self.prepare(directory, manifest_required=manifest_required)
        self.admit(key, prepared)
        return prepared.facts

    def prepare(self, directory: Path, *, manifest_required: bool = True) -> Prepared:
        """Read, check and convert an adapter, on any thread. Raises InvalidAdapter."""
        return self._reader.read(directory, manifest_required=manifest_required)

    def admit(self, key: str, prepared: Prepared) -> list[str]:
        """Take in what was prepared, which is quick; returns what left memory to make room.

        Raises InvalidAdapter, or RayloraError where all else is in use: the bank is as it was.
        """
        self._check_free(key)
        held = [Held(k, weights.bytes, self._in_use(k)) for k, weights in self._adapters.items()]
        leaving = victims(held, prepared.weights.bytes, self._max_bytes)
        for old in leaving:
            self._unload(old)
        self._adapters[key] = prepared.weights
        self._directories[key] = prepared.directory
        self._stamps[key] = prepared.facts.content or next(self._admitted)
        return leaving

    def reload(self, key: str) -> list[str]:
        """Load an adapter that is on disk only; returns what left memory to make room."""
        if self.tier(key) is not Tier.DISK:
            return []
        return self.admit(key, self.prepare(self._directories[key], manifest_required=False))

    def evict(self, key: str) -> None:
        """Drop an adapter from memory; its directory stays known. Refused as `remove` is."""
        self._require_idle(key)
        self._unload(key)

    def remove(self, key: str) -> None:
        """Drop an adapter. Refused while it is pinned or in the running batch."""
        if self.tier(key) is not Tier.DISK:
            self.evict(key)
        del self._directories[key]

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

        Raises NotFound for a key that is not in memory.
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

    @property
    def in_force(self) -> Plan | None:
        """Inside `rows`, what its adapters add, for who calls no layers; None for the base."""
        return self._plan

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _plan_for(self, keys: tuple[str | None, ...]) -> Plan | None:
        if plan := self._plans.get(keys):
            self._plans.move_to_end(keys)
            for key in plan.adapters:
                self._adapters.move_to_end(key)
            return plan
        named = dict.fromkeys(key for key in keys if key is not None)
        for key in named:
            self._require(key)
            self._adapters.move_to_end(key)
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

    def _check_free(self, key: str) -> None:
        if key in self._adapters:
            raise InvalidAdapter(f"{key} is loaded already", hint="remove it first")
        if self._max_adapters is not None and len(self._adapters) >= self._max_adapters:
            raise InvalidAdapter(
                f"{key}: the bank is full with {self._max_adapters} adapters",
                hint="remove one, or raise the limit",
            )

    def _in_use(self, key: str) -> bool:
        return self._pins[key] > 0 or (self._plan is not None and key in self._plan.adapters)

    def _unload(self, key: str) -> None:
        del self._adapters[key], self._stamps[key]
        self._stacks.forget(key)
        self._plans.clear()

    def _require_idle(self, key: str) -> None:
        self._require(key)
        if self._in_use(key):
            raise RayloraError(f"{key} is in use", hint="remove it when its requests are done")

    def _require(self, key: str) -> None:
        if key not in self._adapters:
            raise self._missing(key)

    def _missing(self, key: str) -> NotFound:
        loaded = ", ".join(self._adapters) or "none"
        return NotFound(f"adapter {key} is not loaded", hint=f"loaded: {loaded}")
