"""Where A and B of each layer lie in the one flat tensor of an adapter.

Adapters with the same layers and about the same rank share a layout, so that any of them fits any
slot of a stack and is copied into it in one piece.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

_SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_SMALLEST_RANK = 8


@dataclass(frozen=True)
class Group:
    """Linear layers that are given the same input, in the order of the calls."""

    layers: tuple[str, ...]
    width: int
    """Of the input."""
    offset: int
    """Of A, [rank * len(layers), width]: layer by layer."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Of adapters whose largest rank is at most `rank` on exactly these layers."""

    rank: int
    shapes: Mapping[str, tuple[int, int]]
    """(out, in) of each adapted layer."""

    @cached_property
    def groups(self) -> Mapping[str, Group]:
        """Layer to the group it is in; every A lies before every B."""
        found: dict[str, Group] = {}
        offset = 0
        for layers in groups(self.shapes):
            width = self.shapes[layers[0]][1]
            group = Group(layers, width, offset)
            found.update(dict.fromkeys(layers, group))
            offset += len(layers) * self.rank * width
        return found

    @cached_property
    def b_offsets(self) -> Mapping[str, int]:
        """Layer to the place of its B, transposed: [rank, out]."""
        offset = sum(self.rank * width for _, width in self.shapes.values())
        found: dict[str, int] = {}
        for layer, (out, _) in self.shapes.items():
            found[layer] = offset
            offset += self.rank * out
        return found

    @cached_property
    def size(self) -> int:
        """Elements of the flat tensor."""
        return sum(self.rank * (out + width) for out, width in self.shapes.values())

    def a(self, flat: Tensor, layer: str) -> Tensor:
        """A's of the layer's group in tensors [..., size], as [..., layers * rank, in]."""
        group = self.groups[layer]
        rows = len(group.layers) * self.rank
        part = flat[..., group.offset : group.offset + rows * group.width]
        return part.unflatten(-1, (rows, group.width))

    def b(self, flat: Tensor, layer: str) -> Tensor:
        """B of a layer, transposed, in tensors [..., size], as [..., rank, out]."""
        offset, out = self.b_offsets[layer], self.shapes[layer][0]
        return flat[..., offset : offset + self.rank * out].unflatten(-1, (self.rank, out))

    def first_rows_of_a(self, flat: Tensor, layer: str, rank: int) -> Tensor:
        """A of this layer alone in one flat tensor, [rank, in]."""
        group = self.groups[layer]
        start = group.offset + group.layers.index(layer) * self.rank * group.width
        return flat[start : start + rank * group.width].view(rank, group.width)

    def first_rows_of_b(self, flat: Tensor, layer: str, rank: int) -> Tensor:
        """B of this layer alone in one flat tensor, transposed, [rank, out]."""
        start, out = self.b_offsets[layer], self.shapes[layer][0]
        return flat[start : start + rank * out].view(rank, out)

    def rows(self, layer: str, rank: int) -> slice:
        """Rows of the group's A that are this layer's, of which it uses `rank`."""
        start = self.groups[layer].layers.index(layer) * self.rank
        return slice(start, start + rank)


@dataclass(frozen=True)
class Weights:
    """One adapter in memory; what its ranks leave free is zero."""

    layout: Layout
    flat: Tensor
    """In the base's compute dtype, or in bf16 where that holds the same numbers."""
    ranks: Mapping[str, int]
    """Layer to the rank of its A and B."""
    scales: Mapping[str, float]
    """Layer to the scale of its B A x, where it is not 1; powers of two are in B."""

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.flat.nbytes


class Layouts:
    """The layouts of one base's adapters, each of them made once."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        self._shapes = shapes
        self._made: dict[tuple[int, tuple[str, ...]], Layout] = {}

    def of(self, layers: tuple[str, ...], rank: int) -> Layout:
        """Of adapters of this rank on these layers of the base, in its order."""
        key = (padded(rank), layers)
        return self._made.setdefault(key, Layout(key[0], {x: self._shapes[x] for x in layers}))


def padded(rank: int) -> int:
    """The rank of a slot: few different ones, so that a batch is served in few products."""
    return max(_SMALLEST_RANK, 1 << (rank - 1).bit_length())


def groups(shapes: Mapping[str, tuple[int, int]]) -> list[tuple[str, ...]]:
    """Layers by common input: siblings named in _SAME_INPUT together, any other alone."""
    found: dict[tuple[str, object], list[str]] = {}
    for layer, (_, width) in shapes.items():
        parent, _, name = layer.rpartition(".")
        family = next((names for names in _SAME_INPUT if name in names), layer)
        found.setdefault((parent, (family, width)), []).append(layer)
    return [tuple(layers) for layers in found.values()]
