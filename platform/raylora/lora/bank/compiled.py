"""One token a row on a CPU: adapters of a batch where they lie, by the kernel."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from raylora.lora.bank.kernel import Kernel, Standing, expand, shrink
from raylora.lora.bank.layout import Weights
from raylora.lora.bank.scales import row_scales
from raylora.lora.bank.stacks import Stack


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

    def add(self, layer: str, x: Tensor, out: Tensor) -> None:
        """Add to `out` [batch, 1, out], in place, for `x` [batch, 1, in]."""
        if self._seen is not x:
            a = self._stack.a[layer]
            self._products = shrink(self._kernel, self._standing, x[:, 0], a)
            self._seen = x
        assert self._products is not None
        layout = self._stack.layout
        own = self._products[:, layout.rows(layer, layout.rank)]
        b, scales = self._stack.b[layer], self._scales.get(layer)
        expand(self._kernel, self._standing, own, b, scales, out[:, 0])

    def forget_input(self) -> None:
        """Let go of the last call's activations."""
        self._seen = self._products = None
