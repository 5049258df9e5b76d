"""A step of a Llama-like model on a CPU as a list of calls.

All that steps have in common is worked out once: 400 to 700 calls, arguments included, 3 ms for
SmolLM2 alone and 8 with adapters. Rows that join and leave change what the calls are told, in 0.1
ms, while there are more than half as many as they were made for.
"""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from raylora.engine.cache import BatchCache
from raylora.engine.step.ahead import Product, by_itself, calls_of
from raylora.engine.step.attention import MOST_SIZE, NAME, attention_kernel
from raylora.engine.step.few_rows import FewRows
from raylora.engine.step.forward_pass import ForwardPass
from raylora.engine.step.pointwise import Gate, Norm
from raylora.engine.step.rotation import rotation
from raylora.lora.narrow import NarrowLinear
from raylora.lora.native import Adds, Call, bucket, required

FAMILIES = frozenset(f"{family}ForCausalLM" for family in ("Llama", "Mistral", "Qwen2", "Qwen3"))
"""Whose layers compute as here: q, k, v apart, rotation of whole heads in each layer."""


class StepAdapters(Protocol):
    """What the adapters of a batch add, as `Plan` gives it."""

    def step_version(self) -> tuple[object, ...] | None:
        """What `step_calls` are good for; None where there are none.

        After it calls are for these rows, of whichever batch they were made.
        """
        ...

    def step_calls(self, outs: Mapping[str, Tensor], x: Tensor) -> Iterator[Call]:
        """What adds to each layer's output [rows, out] for `x` [rows, in], which they share."""
        ...

    def prompt_calls(self, tokens: Sequence[int]) -> Adds:
        """The same for so many tokens of each row, one after another, where there is a kernel."""
        ...


class StepPrograms:
    """A model's programs: one at a time, made anew where calls for another batch are others."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._fits = fits(model)
        self._few = _most_of_few_rows(model)
        self._program: StepProgram | None = None
        self._made_for: object = None

    def of(self, cache: BatchCache, adapters: StepAdapters | None) -> "StepProgram | None":
        """For the rows of a cache, and what is added to them; None where the modules are to do it.

        After `cache.open_column`.
        """
        if not self._fits:
            return None
        version = () if adapters is None else adapters.step_version()
        if version is None:
            return None
        rows = bucket(cache.rows)
        if cache.rows <= self._few:
            rows = min(rows, self._few)
        wanted = (rows, version, torch.get_num_threads())
        if self._program is None or self._made_for != wanted:
            self._program = StepProgram(self._model, rows, adapters)
            self._made_for = wanted
        self._program.fit(cache)
        return self._program


def fits(model: Any) -> bool:
    """Whether all layers of a model have the kernels, and compute as here."""
    config = model.config
    if type(model).__name__ not in FAMILIES or config._attn_implementation != NAME:
        return False
    if getattr(config, "sliding_window", None) is not None or rotation(model.dtype) is None:
        return False
    base = model.model
    size = base.layers[0].self_attn.head_dim
    return (
        size <= MOST_SIZE
        and 2 * base.rotary_emb.inv_freq.numel() == size
        and all(map(_layer_fits, base.layers))
        and isinstance(vars(base.norm).get("forward"), Norm)
        and _linear_fits(model.lm_head)
    )


class StepProgram(ForwardPass):
    """Calls for a batch of up to so many rows."""

    def __init__(self, model: Any, rows: int, adapters: StepAdapters | None) -> None:
        super().__init__(model, rows, None if adapters is None else adapters.step_calls)
        # What follows is shared by calls, and changed from batch to batch or step to step.
        self._counts: dict[int, ctypes.c_int64] = {}
        self._kept = [(ctypes.c_void_p(), ctypes.c_void_p()) for _ in self._layers]
        """Keys and values by layer."""
        self._apart = (ctypes.c_int64(), ctypes.c_int64())
        """Rows of the cache, and their heads."""
        self._seen_at, self._seen_apart = ctypes.c_void_p(), ctypes.c_int64()
        self._before, self._columns = ctypes.c_int64(), ctypes.c_int64()
        head = model.lm_head
        self._logits = torch.empty(rows, head.out_features, dtype=model.dtype)
        tokens = self._count(1)
        norm = vars(model.model.norm)["forward"].call(self._x, self._normed, tokens)
        work = [*self._work(), norm, Product(head, self._normed, self._logits, tokens)]
        self._calls = calls_of(work)
        self._adds = None  # they hold adapters, which may leave memory
        self._by_layers = [
            (i, call) for i, call in enumerate(self._calls) if call.function is by_itself
        ]
        self._fitted: int | None = None

    def fit(self, cache: BatchCache) -> None:
        """Be for the rows of a cache from now on, after `cache.open_column`."""
        if self._fitted == cache.version:
            return
        self._fitted = cache.version
        cache.show()
        for each, count in self._counts.items():
            count.value = each * cache.rows
        for (keys, values), kept in zip(self._kept, cache.layers, strict=True):
            keys.value, values.value = kept.keys.data_ptr(), kept.values.data_ptr()
        for apart, stride in zip(self._apart, cache.layers[0].keys.stride(), strict=False):
            apart.value = stride
        self._seen = _seen(cache)
        self._seen_at.value, self._seen_apart.value = self._seen.data_ptr(), self._seen.stride(0)
        for i, call in self._by_layers:
            layer, x, out = call.args
            self._calls[i] = call._replace(args=(layer, x[: cache.rows], out[: cache.rows]))

    def run(self, tokens: Tensor, lengths: Tensor, columns: int) -> Tensor:
        """Logits [rows, vocabulary], good until the next step.

        tokens: the newest one of each row. lengths: tokens before it. columns: of the cache, with
        the one that is filled now.
        """
        self._before.value, self._columns.value = columns - 1, columns
        self._place(tokens, lengths)
        for call in self._calls:
            call.function(*call.args)
        return self._logits[: len(tokens)]

    def _count(self, each: int) -> ctypes.c_int64:
        return self._counts.setdefault(each, ctypes.c_int64())

    def _attend(self, number: int, attention: Any) -> Iterator[Call]:
        keys, values = self._kept[number]
        size, rows = attention.head_dim, self._count(1)
        heads, kv_heads = (x.shape[1] // size for x in (self._query, self._key))
        rotated = (self._query, self._key, self._value, self._cos, self._sin)
        pointers = [tensor.data_ptr() for tensor in rotated]
        args = (*pointers, keys, values, *self._apart, self._before, rows, heads, kv_heads, size)
        yield Call(required(rotation(self._x.dtype)).rotate_and_keep, args)
        args = (
            self._query.data_ptr(),
            keys,
            values,
            *self._apart,
            self._seen_at,
            self._seen_apart,
            rows,
            kv_heads,
            heads // kv_heads,
            self._columns,
            size,
            attention.scaling,
            self._attended.data_ptr(),
            torch.get_num_threads(),
        )
        yield Call(required(attention_kernel(self._x.dtype)), args)


def _most_of_few_rows(model: Any) -> int:
    """Rows up to which a layer's products are by FewRows; 0 where they never are."""
    own = (vars(module).get("forward") for module in model.modules())
    return min((each.most for each in own if isinstance(each, FewRows)), default=0)


def _seen(cache: BatchCache) -> Tensor:
    """Columns that belong to each row, those to come included: [rows, capacity]."""
    starts = torch.tensor([[cache.width - length] for length in cache.lengths])
    return torch.arange(cache.capacity) >= starts


def _layer_fits(layer: Any) -> bool:
    attention, mlp = layer.self_attn, layer.mlp
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    norms += [
        getattr(attention, name) for name in ("q_norm", "k_norm") if hasattr(attention, name)
    ]
    linears = [getattr(attention, f"{part}_proj") for part in "qkvo"]
    linears += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return (
        all(isinstance(vars(norm).get("forward"), Norm) for norm in norms)
        and all(map(_linear_fits, linears))
        and isinstance(vars(mlp).get("forward"), Gate)
    )


def _linear_fits(layer: Any) -> bool:
    own = vars(layer).get("forward")
    return type(layer) in (nn.Linear, NarrowLinear) and (own is None or isinstance(own, FewRows))
