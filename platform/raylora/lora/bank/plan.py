"""How adapters are added to the output of the base's linear layers, for one mixture of rows.

One token a row: each row gets its own B A x, so that a step costs one read of each adapter,
whatever the mixture; by compiled.py on a CPU, else by batched.py. Layers with the same input
(q, k, v; gate, up) share the product with A. One product of all rows with all adapters, masked,
took 5 times as long at 16 rows of 16 adapters.

Prompts, many tokens a row: by compiled.py where the processor has a kernel for them, else in
batched products where little of these would be dropped, else adapter by adapter.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from raylora.lora.bank.batched import Batched, waste
from raylora.lora.bank.compiled import Compiled
from raylora.lora.bank.kernel import Kernel, load, load_for_prompts
from raylora.lora.bank.layout import Layout, Weights
from raylora.lora.bank.one_by_one import OneByOne
from raylora.lora.bank.stacks import Stack, Stacks
from raylora.lora.native import Adds, Call, required

MOST_WASTE = 1.25
"""Of a prompt's batched products over those that are wanted; calls are saved for that."""


class Products(Protocol):
    """A way to multiply rows with their adapters while the stack is as it was."""

    def add(self, layer: str, x: Tensor, out: Tensor) -> None:
        """Add to `out` [batch, tokens, out], in place, for `x` [batch, tokens, in]."""
        ...

    def forget_input(self) -> None:
        """Let go of the last call's activations."""
        ...


class Plan:
    """What `Bank.rows` puts in force."""

    def __init__(
        self, keys: Sequence[str | None], adapters: Mapping[str, Weights], stacks: Stacks
    ) -> None:
        self.adapters = adapters
        self._rows = len(keys)
        members: dict[tuple[Layout, torch.dtype], dict[str, list[int]]] = {}
        for row, key in enumerate(keys):
            if key is not None:
                weights = adapters[key]
                kind = weights.layout, weights.flat.dtype
                members.setdefault(kind, {}).setdefault(key, []).append(row)
        self._shares = [
            _Share(stacks.of(*kind), rows, {key: adapters[key] for key in rows}, len(keys))
            for kind, rows in members.items()
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
            if layer in share.layout.shapes:
                share.products(x.shape[1]).add(layer, x, out)

    def step_version(self) -> tuple[object, ...] | None:
        """What `step_calls` are good for: another version, other calls. None where there are none.

        All adapters are in place after it, and calls, of whichever plan, are for these rows.
        """
        versions: list[object] = []
        for share in self._shares:
            products = share.products(1)
            if not isinstance(products, Compiled):
                return None
            products.stand()
            versions.append(products.version)
        return tuple(versions)

    def step_calls(self, outs: Mapping[str, Tensor], x: Tensor) -> Iterator[Call]:
        """What adds to each layer's output [batch, out] each row's B A x, for `x` [batch, in].

        outs: of layers that have the input in common. After `step_version` and while it stays.
        """
        for share in self._shares:
            products = share.products(1)
            if isinstance(products, Compiled):
                yield from products.calls(outs, x)

    def prompt_calls(self, tokens: Sequence[int]) -> Adds:
        """The same for so many tokens of each row, one after another.

        Where `load_for_prompts` has a kernel. All adapters are in place after it; each call is to
        be made before the next is asked for.
        """
        found = [required(share.compiled_prompt(tokens)) for share in self._shares]
        return lambda outs, x: (call for own in found for call in own.calls(outs, x))

    def leave(self) -> None:
        """Let go of the last call's activations."""
        for share in self._shares:
            share.forget_input()


@dataclass
class _Share:
    """The rows of a mixture whose adapters have one layout and format."""

    stack: Stack
    rows: Mapping[str, Sequence[int]]
    """Adapter to its batch rows."""
    adapters: Mapping[str, Weights]
    batch: int
    _step: Products | None = None
    _step_version: int = -1
    _prompt: Products | None = None
    _prompt_for: tuple[int, int] | None = None

    @property
    def layout(self) -> Layout:
        """Of all its adapters."""
        return self.stack.layout

    def products(self, tokens: int) -> Products:
        """For so many tokens a row, with all adapters in the stack."""
        if tokens == 1:
            if self._step is None or self._step_version != self.stack.table.version:
                self._step = self._for_step()
                self._step_version = self.stack.table.version
            return self._step
        if self._prompt is None or self._prompt_for != (self.stack.table.version, tokens):
            self._prompt = self._for_prompt(tokens)
            self._prompt_for = self.stack.table.version, tokens
        return self._prompt

    def forget_input(self) -> None:
        """Let go of the last call's activations."""
        for products in (self._step, self._prompt):
            if products is not None:
                products.forget_input()

    def _for_step(self) -> Products:
        self.stack.hold_together(self.adapters)
        kernel = self._kernel(load)
        if kernel is not None:
            standing = self.stack.standing(self.batch)
            return Compiled(kernel, self.stack, self.rows, self.adapters, standing=standing)
        return Batched(self.stack, self.rows, self.adapters, self.batch)

    def _for_prompt(self, tokens: int) -> Products:
        compiled = self.compiled_prompt([tokens] * self.batch)
        if compiled is not None:
            return compiled
        self.stack.hold(self.adapters)
        if waste(self.stack, self.rows) <= MOST_WASTE:
            return Batched(self.stack, self.rows, self.adapters, self.batch)
        return OneByOne(self.stack, self.rows, self.adapters)

    def compiled_prompt(self, tokens: Sequence[int]) -> Compiled | None:
        """For so many tokens of each batch row, where the processor has a kernel for them."""
        kernel = self._kernel(load_for_prompts)
        if kernel is None:
            return None
        self.stack.hold(self.adapters)
        compiled = Compiled(kernel, self.stack, self.rows, self.adapters, tokens)
        compiled.stand()
        return compiled

    def _kernel(self, load: Callable[[torch.dtype, torch.dtype], Kernel | None]) -> Kernel | None:
        if self.stack.device.type != "cpu":
            return None
        return load(self.stack.dtype, self.stack.stored)
