"""Adapters of a batch where they lie, by a kernel on a CPU."""

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from raylora.lora.bank.kernel import Adapt, Kernel, Part, Standing
from raylora.lora.bank.layout import Group, Weights
from raylora.lora.bank.scales import row_scales
from raylora.lora.bank.stacks import Stack
from raylora.lora.native import Call, Reads, bucket


class Compiled:
    """Each row's own products with the slot of its adapter."""

    def __init__(
        self,
        kernel: Kernel,
        stack: Stack,
        rows: Mapping[str, Sequence[int]],
        adapters: Mapping[str, Weights],
        tokens: Sequence[int] | None = None,
        standing: Standing | None = None,
    ) -> None:
        """tokens: of each batch row, which lie one after another; None is one of each.

        standing: of the running batch, for calls that outlive it; None is one of its own.
        """
        self._kernel = kernel
        self._stack = stack
        self._tokens = tokens
        own = {key: own for key, each in rows.items() if (own := _of_input(each, tokens))}
        self._slots = [stack.table[key] for key in own]
        self._rows = list(own.values())
        self._standing = standing or Standing(sum(map(len, self._rows)))
        order = [row for own in rows.values() for row in own]
        self._scales = row_scales(rows, adapters, order, stack.device)
        if tokens is not None:
            repeated = torch.tensor([tokens[row] for row in order])
            self._scales = {
                layer: scales.repeat_interleave(repeated) for layer, scales in self._scales.items()
            }
        self._room: dict[int, Tensor] = {}
        """By number of ranks."""
        self._by_layer: dict[str, Adapt] = {}
        """What `add` has used."""
        self._seen: Tensor | None = None
        """Input of the running call, by identity."""
        self._products: Tensor | None = None
        """A x for `_seen`, [rows, rank * layers]."""
        self._shared: tuple[Group, Tensor, Tensor] | None = None
        """The last group and input of `calls`, and A x for them."""

    @property
    def version(self) -> tuple[object, ...]:
        """Where two have the same, calls of one serve the other as well, while that one stands.

        It does not keep the stack alive.
        """
        own = weakref.ref(self) if self._scales else None
        stack, adapters = weakref.ref(self._stack), bucket(len(self._slots))
        return stack, self._stack.moves, self._standing, adapters, own

    def stand(self) -> None:
        """From now on calls are for these rows."""
        if not self._standing.is_of(self):
            self._standing.place(self._slots, self._rows, self)

    def add(self, layer: str, x: Tensor, out: Tensor) -> None:
        """Add to `out` [batch, tokens, out], in place, for `x` [batch, tokens, in]."""
        adapt = self._by_layer.get(layer)
        if adapt is None:
            adapt = self._by_layer[layer] = self._adapt([layer])
        given = None
        if self._seen is not x or self._products is None:
            self.stand()
            self._products = self._products_of(layer, x)
            self._seen = x
            given = x.flatten(0, 1)
        call = adapt.call(self._products, [out.view(-1, out.shape[2])], given)
        call.function(*call.args)

    def calls(self, outs: Mapping[str, Tensor], x: Tensor) -> Iterator[Call]:
        """What adds to each output [tokens, out] for `x` [tokens, in], whatever is in them.

        outs: by layer; the layers have the input in common. To be made in the order of the calls:
        those that follow each other with one input share a product. After `stand`.
        """
        groups = self._stack.layout.groups
        adapted = [layer for layer in outs if layer in groups]
        for group in dict.fromkeys(groups[layer] for layer in adapted):
            own = [layer for layer in adapted if groups[layer] is group]
            yield self._call(group, {layer: outs[layer] for layer in own}, x)

    def forget_input(self) -> None:
        """Let go of the last call's activations."""
        self._seen = self._products = None

    def _call(self, group: Group, outs: Mapping[str, Tensor], x: Tensor) -> Call:
        adapt, given = self._adapt(list(outs)), list(outs.values())
        if self._shared is not None and self._shared[0] is group and self._shared[1] is x:
            return self._reading(adapt.call(self._shared[2], given, None), outs)
        products = self._products_of(group.layers[0], x)
        self._shared = (group, x, products)
        return self._reading(adapt.call(products, given, x), outs, group.layers[0])

    def _reading(self, call: Call, layers: Iterable[str], *of_a: str) -> Call:
        if self._tokens is not None:
            return call  # its products are not bound by what they read
        stack, slots = self._stack, self._standing.slots(bucket(len(self._slots)))
        stacks = [*(stack.a[layer] for layer in of_a), *(stack.b[layer] for layer in layers)]
        return call._replace(reads=[Reads.of(each, slots) for each in stacks])

    def _adapt(self, layers: Sequence[str]) -> Adapt:
        layout, stack = self._stack.layout, self._stack
        parts = [
            Part(stack.b[layer], layout.rows(layer, layout.rank).start, self._scales.get(layer))
            for layer in layers
        ]
        return Adapt(self._kernel, self._standing, stack.a[layers[0]], parts)

    def _products_of(self, layer: str, x: Tensor) -> Tensor:
        """Room for A x, in which the last one with as many ranks was."""
        ranks = self._stack.a[layer].shape[1]
        if ranks not in self._room:
            self._room[ranks] = x.new_empty(self._standing.capacity, ranks)
        return self._room[ranks]


def _of_input(own: Sequence[int], tokens: Sequence[int] | None) -> Sequence[int]:
    """Rows of the input for some of the batch."""
    if tokens is None:
        return own
    ends = list(accumulate(tokens))
    return [token for row in own for token in range(ends[row] - tokens[row], ends[row])]
