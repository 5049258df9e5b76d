"""The two ways in which adapters are added to the output of the base's linear layers.

Decode, one token a row: the batch's adapters lie side by side in one A and one B per layer. One
product gives every row its B A x for all of them, a mask keeps each row's own, so a step costs one
read of each adapter and two products a layer, whatever the mixture. Layers with the same input (q,
k, v; gate, up) share the product with A.

Prompts, many tokens a row: there that would multiply the work, so rows are taken adapter by
adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from raylora.lora.slots import SlotTable

_SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass(frozen=True)
class Weights:
    """One adapter in memory, in the base's compute dtype."""

    rank: int
    """Largest of its layers."""
    a: Mapping[str, Tensor]
    """Layer to A, [r, in]."""
    b: Mapping[str, Tensor]
    """Layer to B transposed, [r, out]; scales that are powers of two are in it."""
    scales: Mapping[str, float]
    """Layer to the scale of its B A x, where it is not 1."""

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(t.nbytes for part in (self.a, self.b) for t in part.values())


@dataclass
class Group:
    """Linear layers that are given the same input, in the order of the calls."""

    layers: tuple[str, ...]
    a: Tensor
    """[rows * len(layers), in]: row by row, A of each layer."""
    seen: Tensor | None = None
    """Input of the running call, by identity."""
    products: tuple[Tensor, ...] = ()
    """Masked A x of each layer for `seen`, each [batch, rows]."""


class Stacks:
    """A and B of the adapters in the running batch, stacked for each layer."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._shapes = shapes
        self.dtype = dtype
        self.device = device
        self.table = SlotTable()
        self.groups: dict[str, Group] = {}
        self.b: dict[str, Tensor] = {}
        self._allocated = 0

    def hold(self, adapters: Mapping[str, Weights]) -> int:
        """Have these adapters in place; returns the number of rows that hold them."""
        ranks = {key: weights.rank for key, weights in adapters.items()}
        new = self.table.place(ranks)
        if self._allocated < self.table.capacity:
            self._allocate(self.table.capacity)
        for key in new:
            self._copy(adapters[key], self.table[key])
        return self.table.extent(ranks)

    def _allocate(self, rows: int) -> None:
        # Zeros: rows that no adapter has written yet are multiplied by 0 and must be finite.
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        for layers in groups(self._shapes):
            size = (rows * len(layers), self._shapes[layers[0]][1])
            group = Group(layers, like.new_zeros(size))
            for layer in layers:
                self.groups[layer] = group
                self.b[layer] = like.new_zeros(rows, self._shapes[layer][0])
        self._allocated = rows

    def _copy(self, weights: Weights, slot: range) -> None:
        for layer, group in self.groups.items():
            width = len(group.layers)
            a = group.a.view(-1, width, group.a.shape[1])[slot.start : slot.stop]
            _fill(a[:, group.layers.index(layer)], weights.a.get(layer))
            _fill(self.b[layer][slot.start : slot.stop], weights.b.get(layer))


@dataclass
class Plan:
    """How one composition of batch rows is served: what `Bank.rows` puts in force."""

    keys: tuple[str | None, ...]
    adapters: Mapping[str, Weights]
    stacks: Stacks
    layers: frozenset[str] = field(init=False)
    """Layers that any of the adapters changes."""
    _version: int = -1
    _extent: int = 0
    _own: Tensor = field(init=False)
    _zero: Tensor = field(init=False)
    _scales: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Layer to the scale of each batch row, [batch, 1] in fp32, where one is not 1."""
    _members: dict[str, slice | Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.layers = frozenset(layer for w in self.adapters.values() for layer in w.a)
        self._members = {
            key: _members(self.keys, key, self.stacks.device) for key in self.adapters
        }

    def add(self, layer: str, x: Tensor, out: Tensor) -> None:
        """Add to `out` [batch, tokens, out], in place, each row's B A x."""
        if x.dim() != 3 or x.shape[0] != len(self.keys):
            raise ValueError(
                f"{layer} got input {list(x.shape)} where rows() announced {len(self.keys)} rows"
            )
        if x.shape[1] == 1:
            self._add_to_step(layer, x, out)
        else:
            self._add_to_prompt(layer, x, out)

    def _add_to_step(self, layer: str, x: Tensor, out: Tensor) -> None:
        if self._version != self.stacks.table.version:
            self._enter()
        group = self.stacks.groups[layer]
        if group.seen is not x:
            group.seen, group.products = x, self._products(group, x[:, 0])
        product = group.products[group.layers.index(layer)]
        # Not addmm_, though faster: PEFT rounds after each of product, scale and sum.
        delta = product @ self.stacks.b[layer][: self._extent]
        if layer in self._scales:
            torch.mul(delta, self._scales[layer], out=delta)
        out[:, 0] += delta

    def _products(self, group: Group, x: Tensor) -> tuple[Tensor, ...]:
        """A x of each row's own adapter, else 0; [batch, rows] for each layer of the group.

        Chosen, not multiplied by 0: what overflows in one adapter must not reach another's row.
        """
        width = len(group.layers)
        every = functional.linear(x, group.a[: self._extent * width])
        per_layer = every.view(x.shape[0], self._extent, width).permute(2, 0, 1)
        own = torch.empty(per_layer.shape, dtype=every.dtype, device=every.device)
        return torch.where(self._own, per_layer, self._zero, out=own).unbind()

    def _enter(self) -> None:
        """Put the adapters into the stacks and mark which of their rows are each batch row's."""
        self._extent = self.stacks.hold(self.adapters)
        self._version = self.stacks.table.version
        own = torch.zeros(len(self.keys), self._extent, dtype=torch.bool)
        for row, key in enumerate(self.keys):
            if key is not None:
                slot = self.stacks.table[key]
                own[row, slot.start : slot.stop] = True
        self._own = own.to(self.stacks.device)
        self._scales = self._row_scales()
        self._zero = torch.zeros((), dtype=self.stacks.dtype, device=self.stacks.device)

    def _row_scales(self) -> dict[str, Tensor]:
        layers = {layer for weights in self.adapters.values() for layer in weights.scales}
        scales: dict[tuple[float, ...], Tensor] = {}
        found: dict[str, Tensor] = {}
        for layer in layers:
            values = tuple(
                1.0 if key is None else self.adapters[key].scales.get(layer, 1.0)
                for key in self.keys
            )
            if values not in scales:
                scales[values] = torch.tensor(values, device=self.stacks.device)[:, None]
            found[layer] = scales[values]
        return found

    def _add_to_prompt(self, layer: str, x: Tensor, out: Tensor) -> None:
        for key, weights in self.adapters.items():
            if layer not in weights.a:
                continue
            rows = self._members[key]
            taken = x[rows] if isinstance(rows, slice) else x.index_select(0, rows)
            delta = functional.linear(taken, weights.a[layer]) @ weights.b[layer]
            if layer in weights.scales:
                delta *= weights.scales[layer]
            if isinstance(rows, slice):
                out[rows] += delta
            else:
                out.index_add_(0, rows, delta)

    def leave(self) -> None:
        """Let go of the last call's activations."""
        for group in self.stacks.groups.values():
            group.seen, group.products = None, ()


def groups(shapes: Mapping[str, tuple[int, int]]) -> list[tuple[str, ...]]:
    """Layers by common input: siblings named in _SAME_INPUT together, any other alone."""
    found: dict[tuple[str, object], list[str]] = {}
    for layer, (_, width) in shapes.items():
        parent, _, name = layer.rpartition(".")
        family = next((names for names in _SAME_INPUT if name in names), layer)
        found.setdefault((parent, (family, width)), []).append(layer)
    return [tuple(layers) for layers in found.values()]


def _members(keys: Sequence[str | None], key: str, device: torch.device) -> slice | Tensor:
    """Indices of the batch rows with this key, as a slice where they are neighbours."""
    rows = [row for row, wanted in enumerate(keys) if wanted == key]
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, device=device)


def _fill(rows: Tensor, source: Tensor | None) -> None:
    """Copy `source` over the first rows and zero the rest: smaller rank, or layer not adapted."""
    length = 0 if source is None else source.shape[0]
    if source is not None:
        rows[:length].copy_(source)
    rows[length:].zero_()
