"""The device tier: adapters of the running batch side by side, by layout and number format."""

from collections.abc import Mapping

import torch
from torch import Tensor

from raylora.lora.bank import huge_pages
from raylora.lora.bank.kernel import Standing
from raylora.lora.bank.layout import Layout, Weights
from raylora.lora.bank.slots import SlotTable
from raylora.lora.native import bucket


class Stack:
    """Adapters of one layout in slots of one tensor, and views of it for each layer."""

    def __init__(
        self,
        layout: Layout,
        dtype: torch.dtype,
        device: torch.device,
        *,
        stored: torch.dtype | None = None,
    ) -> None:
        """For rows of `dtype`; `stored` is that of the adapters, where it is another."""
        self.layout = layout
        self.dtype = dtype
        self.stored = stored or dtype
        self.device = device
        self.table = SlotTable()
        self._flat = torch.zeros(0, layout.size, dtype=self.stored, device=device)
        self.a: Mapping[str, Tensor] = {}
        """Layer to A of its whole group, [slots, rank * layers, in]."""
        self.b: Mapping[str, Tensor] = {}
        """Layer to B transposed, [slots, rank, out]."""
        self.moves = 0
        """How often all of it has come to lie elsewhere."""
        self._standing = Standing(0)

    @property
    def bytes(self) -> int:
        """Size on the device."""
        return self._flat.nbytes

    def hold_together(self, adapters: Mapping[str, Weights]) -> None:
        """Have the running batch's adapters in place, close together."""
        self._copy(self.table.place_together(list(adapters)), adapters)

    def hold(self, adapters: Mapping[str, Weights]) -> None:
        """Have adapters in place, anywhere."""
        self._copy(self.table.place(list(adapters)), adapters)

    def standing(self, rows: int) -> Standing:
        """Of the running batch, for so many rows: the same one while it has room for them."""
        if self._standing.capacity < rows:
            self._standing = Standing(bucket(rows))
        return self._standing

    def _copy(self, keys: list[str], adapters: Mapping[str, Weights]) -> None:
        if self._flat.shape[0] < self.table.capacity:
            self._enlarge()
        for key in keys:
            self._flat[self.table[key]].copy_(adapters[key].flat, non_blocking=True)

    def _enlarge(self) -> None:
        # Zeros: slots that no adapter has written yet are multiplied too and must be finite.
        shape = (self.table.capacity, self.layout.size)
        if self.device.type == "cpu":
            larger = huge_pages.zeros(*shape, dtype=self.stored)
        else:
            larger = self._flat.new_zeros(shape)
        larger[: self._flat.shape[0]] = self._flat
        self._flat = larger
        self.moves += 1
        layers = self.layout.shapes
        self.a = {layer: self.layout.a(larger, layer) for layer in layers}
        self.b = {layer: self.layout.b(larger, layer) for layer in layers}


class Stacks:
    """All stacks of a bank."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype = dtype
        self.device = device
        self._stacks: dict[tuple[Layout, torch.dtype], Stack] = {}

    @property
    def bytes(self) -> int:
        """Size on the device."""
        return sum(stack.bytes for stack in list(self._stacks.values()))

    def of(self, layout: Layout, stored: torch.dtype) -> Stack:
        """The stack of a layout, for adapters of this format."""
        wanted = layout, stored
        if wanted not in self._stacks:
            self._stacks[wanted] = Stack(layout, self._dtype, self.device, stored=stored)
        return self._stacks[wanted]

    def holds(self, key: str) -> bool:
        """Whether an adapter is in a slot; on any thread."""
        return any(key in stack.table for stack in list(self._stacks.values()))

    def forget(self, key: str) -> None:
        """Give up an adapter's slot, and with the last one of a layout its stack."""
        for kind, stack in list(self._stacks.items()):
            stack.table.forget(key)
            if not len(stack.table):
                del self._stacks[kind]
