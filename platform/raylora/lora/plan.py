"""How adapters are added to the output of the base's linear layers, for one mixture of rows.

Decode, one token a row: the adapters of the batch lie side by side in their stack. Rows are put
beside their adapters, and two batched products a layer give each row its own B A x, so a step
costs one read of each adapter, whatever the mixture. Layers with the same input (q, k, v; gate,
up) share the product with A. One product of all rows with all adapters, masked, took 5 times as
long at 16 rows of 16 adapters.

Prompts, many tokens a row: rows are taken adapter by adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from raylora.lora.layout import Layout, Weights
from raylora.lora.stacks import Stack, Stacks


class Plan:
    """What `Bank.rows` puts in force."""

    def __init__(
        self, keys: Sequence[str | None], adapters: Mapping[str, Weights], stacks: Stacks
    ) -> None:
        self.adapters = adapters
        self._rows = len(keys)
        members: dict[Layout, dict[str, list[int]]] = {}
        for row, key in enumerate(keys):
            if key is not None:
                members.setdefault(adapters[key].layout, {}).setdefault(key, []).append(row)
        self._shares = [
            _Share(stacks.of(layout), rows, {key: adapters[key] for key in rows}, len(keys))
            for layout, rows in members.items()
        ]
        self.layers = frozenset(layer for share in self._shares for layer in share.layout.shapes)
        """Layers that any of the adapters changes."""

    def add(self, layer: str, x: Tensor, out: Tensor) -> None:
        """Add to `out` [batch, tokens, out], in place, each row's B A x."""
        if x.dim() != 3 or x.shape[0] != self._rows:
            raise ValueError(
                f"{layer} got input {list(x.shape)} where rows() announced {self._rows} rows"
            )
        for share in self._shares:
            if layer not in share.layout.shapes:
                continue
            if x.shape[1] == 1:
                share.add_to_step(layer, x, out[:, 0])
            else:
                share.add_to_prompt(layer, x, out)

    def leave(self) -> None:
        """Let go of the last call's activations."""
        for share in self._shares:
            share.forget_input()


@dataclass
class _Share:
    """The rows of a mixture whose adapters have one layout."""

    stack: Stack
    rows: Mapping[str, Sequence[int]]
    """Adapter to its batch rows."""
    adapters: Mapping[str, Weights]
    batch: int
    _step: "_Step | None" = None
    _prompt_version: int = -1
    _indices: Mapping[str, slice | Tensor] = field(init=False)
    _seen: Tensor | None = None
    """Input of the running call, by identity."""
    _products: Tensor | None = None
    """A x for `_seen`, [slots, rows a slot, rank * layers]."""

    def __post_init__(self) -> None:
        self._indices = {key: self._index(rows) for key, rows in self.rows.items()}

    @property
    def layout(self) -> Layout:
        """Of all its adapters."""
        return self.stack.layout

    def add_to_step(self, layer: str, x: Tensor, out: Tensor) -> None:
        """Add to `out` [batch, out] for `x` [batch, 1, in]."""
        step = self._step
        if step is None or step.version != self.stack.table.version:
            step = self._step = self._enter()
        if self._seen is not x:
            a = self.stack.a[layer][step.window]
            self._seen, self._products = x, _each_by_its_own(step.gather(x[:, 0]), a)
        assert self._products is not None
        own = self._products[..., self.layout.rows(layer, self.layout.rank)]
        # Not baddbmm, though faster: PEFT rounds after each of product, scale and sum.
        delta = torch.bmm(own, self.stack.b[layer][step.window])
        step.scatter_add(out, delta, step.scales.get(layer))

    def add_to_prompt(self, layer: str, x: Tensor, out: Tensor) -> None:
        """Add to `out` [batch, tokens, out] for `x` [batch, tokens, in]."""
        if self._prompt_version != self.stack.table.version:
            self.stack.hold(self.adapters)
            self._prompt_version = self.stack.table.version
        for key, weights in self.adapters.items():
            rows, slot, rank = self._indices[key], self.stack.table[key], weights.ranks[layer]
            a = self.stack.a[layer][slot, self.layout.rows(layer, rank)]
            b = self.stack.b[layer][slot, :rank]
            taken = x[rows] if isinstance(rows, slice) else x.index_select(0, rows)
            delta = functional.linear(taken, a) @ b
            if layer in weights.scales:
                delta *= weights.scales[layer]
            if isinstance(rows, slice):
                out[rows] += delta
            else:
                out.index_add_(0, rows, delta)

    def forget_input(self) -> None:
        """Let go of the last call's activations."""
        self._seen = self._products = None

    def _enter(self) -> "_Step":
        """Put the adapters into the stack, and each row beside its own."""
        window = self.stack.hold_together(self.adapters)
        depth = max(len(rows) for rows in self.rows.values())
        beside = [0] * (len(window) * depth)
        places: dict[int, int] = {}
        for key, rows in self.rows.items():
            start = (self.stack.table[key] - window.start) * depth
            for place, row in enumerate(rows, start):
                beside[place], places[row] = row, place
        order = sorted(places)
        straight = beside == list(range(self.batch)) and len(order) == self.batch
        return _Step(
            version=self.stack.table.version,
            window=slice(window.start, window.stop),
            depth=depth,
            beside=None if straight else self._tensor(beside),
            places=None if straight else self._tensor([places[row] for row in order]),
            rows=None if len(order) == self.batch else self._tensor(order),
            scales=self._row_scales(order),
        )

    def _row_scales(self, order: Sequence[int]) -> Mapping[str, Tensor]:
        owner = {row: self.adapters[key].scales for key, rows in self.rows.items() for row in rows}
        made: dict[tuple[float, ...], Tensor] = {}
        found: dict[str, Tensor] = {}
        for layer in {layer for weights in self.adapters.values() for layer in weights.scales}:
            values = tuple(owner[row].get(layer, 1.0) for row in order)
            if values not in made:
                made[values] = torch.tensor(values, device=self.stack.device)[:, None]
            found[layer] = made[values]
        return found

    def _index(self, rows: Sequence[int]) -> slice | Tensor:
        if rows[-1] - rows[0] + 1 == len(rows):
            return slice(rows[0], rows[-1] + 1)
        return self._tensor(rows)

    def _tensor(self, indices: Sequence[int]) -> Tensor:
        return torch.tensor(indices, device=self.stack.device)


@dataclass(frozen=True)
class _Step:
    """Where the rows of a decode step stand while the stack is as it was at `version`."""

    version: int
    window: slice
    """Slots that are multiplied."""
    depth: int
    """Rows a slot: of the adapter that has most. The others' places are filled with row 0."""
    beside: Tensor | None
    """Batch row at each place, [slots * depth]; None where that is 0, 1, 2 ..."""
    places: Tensor | None
    """Place of each row, in the order of rows."""
    rows: Tensor | None
    """Batch rows that have an adapter; None for all."""
    scales: Mapping[str, Tensor]
    """Layer to the scale of each of these rows, [rows, 1] in fp32, where one is not 1."""

    def gather(self, x: Tensor) -> Tensor:
        """Rows of `x` [batch, in] beside their adapters, [slots, depth, in]."""
        taken = x if self.beside is None else x.index_select(0, self.beside)
        return taken.unflatten(0, (-1, self.depth))

    def scatter_add(self, out: Tensor, delta: Tensor, scale: Tensor | None) -> None:
        """Add `delta` [slots, depth, out] to each row's own of `out` [batch, out].

        What filled the other places is dropped here, so an overflow stays in its row.
        """
        own = delta.flatten(0, 1)
        if self.places is not None:
            own = own.index_select(0, self.places)
        if scale is not None:
            torch.mul(own, scale, out=own)
        if self.rows is None:
            out += own
        else:
            out.index_add_(0, self.rows, own)


def _each_by_its_own(x: Tensor, a: Tensor) -> Tensor:
    """A x of each slot, [slots, depth, rank], for `x` [slots, depth, in], `a` [slots, rank, in].

    In 16 bits oneDNN rearranges the matrix on the right at every call, so that is to be the small
    one: 3.8 against 11.1 ms for 30 layers of 16 slots. In fp32 it is the other way round, 9.5
    against 3.8.
    """
    if a.dtype is torch.float32:
        return torch.bmm(x, a.transpose(1, 2))
    return torch.bmm(a, x.transpose(1, 2)).transpose(1, 2)
