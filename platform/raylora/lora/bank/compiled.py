"""One token a row on a CPU: adapters of a batch where they lie, by the kernel."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from raylora.lora.bank.kernel import Kernel, Standing, expand, shrink
from raylora.lora.bank.layout import Group, Weights
from raylora.lora.bank.scales import row_scales
from raylora.lora.bank.stacks import Stack
from raylora.lora.native import Call


class Compiled:
    """Each row's own products with the slot of its adapter."""

    def __init__(
        self,
        kernel: Kernel,
        stack: Stack,
        rows: Mapping[str, Sequence[int]],
        adapters: Mapping[str, Weights],
    ) -> None:
        self._kernel = kernel
        self._stack = stack
        self._standing = Standing([stack.table[key] for key in rows], list(rows.values()))
        self._scales = row_scales(rows, adapters, self._standing.order, stack.device)
        self._seen: Tensor | None = None
        """Input of the running call, by identity."""
        self._products: Tensor | None = None
        """A x for `_seen`, [rows, rank * layers]."""
        self._shared: tuple[Group, Tensor, Tensor] | None = None
        """The last group and input of `calls`, and A x for them."""

    def add(self, layer: str, x: Tensor, out: Tensor) -> None:
        """Add to `out` [batch, 1, out], in place, for `x` [batch, 1, in]."""
        if self._seen is not x:
            self._products, call = self._shrink(layer, x[:, 0])
            call.function(*call.args)
            self._seen = x
        assert self._products is not None
        call = self._expand(layer, self._products, out[:, 0])
        call.function(*call.args)

    def calls(self, layer: str, x: Tensor, out: Tensor) -> Iterator[Call]:
        """What adds to `out` [batch, out] for `x` [batch, in], whatever is in the two by then.

        To be made layer by layer in the order of the calls: those with one input share a product.
        """
        group = self._stack.layout.groups[layer]
        if self._shared is None or self._shared[0] is not group or self._shared[1] is not x:
            products, call = self._shrink(layer, x)
            self._shared = (group, x, products)
            yield call
        yield self._expand(layer, self._shared[2], out)

    def forget_input(self) -> None:
        """Let go of the last call's activations."""
        self._seen = self._products = None

    def _shrink(self, layer: str, x: Tensor) -> tuple[Tensor, Call]:
        return shrink(self._kernel, self._standing, x, self._stack.a[layer])

    def _expand(self, layer: str, products: Tensor, out: Tensor) -> Call:
        layout = self._stack.layout
        own = products[:, layout.rows(layer, layout.rank)]
        b, scales = self._stack.b[layer], self._scales.get(layer)
        return expand(self._kernel, self._standing, own, b, scales, out)
