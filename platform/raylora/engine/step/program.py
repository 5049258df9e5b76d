"""A step of a Llama-like model on a CPU as a list of calls.

All that a batch's steps have in common is worked out once: 400 to 700 calls, arguments included.
"""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from raylora.engine.cache import BatchCache
from raylora.engine.step.ahead import Product, calls_of
from raylora.engine.step.attention import MOST_SIZE, NAME, attention_kernel
from raylora.engine.step.few_rows import FewRows
from raylora.engine.step.forward_pass import ForwardPass
from raylora.engine.step.pointwise import Gate, Norm
from raylora.engine.step.rotation import rotation
from raylora.lora.narrow import NarrowLinear
from raylora.lora.native import Adds, Call, required

FAMILIES = frozenset(f"{family}ForCausalLM" for family in ("Llama", "Mistral", "Qwen2", "Qwen3"))
"""Whose layers compute as here: q, k, v apart, rotation of whole heads in each layer."""


class StepAdapters(Protocol):
    """What the adapters of a batch add, as `Plan` gives it."""

    def step_version(self) -> tuple[int, ...] | None:
        """What `step_calls` are good for; None where there are none."""
        ...

    def step_calls(self, outs: Mapping[str, Tensor], x: Tensor) -> Iterator[Call]:
        """What adds to each layer's output [rows, out] for `x` [rows, in], which they share."""
        ...

    def prompt_calls(self, tokens: Sequence[int]) -> Adds:
        """The same for so many tokens of each row, one after another, where there is a kernel."""
        ...


class StepPrograms:
    """A model's programs: one at a time, made anew for another batch."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._fits = fits(model)
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
        threads = torch.get_num_threads()
        wanted = (cache.version, id(adapters), version, threads)
        if self._program is None or self._made_for != wanted:
            self._program = StepProgram(self._model, cache, adapters)
            self._made_for = wanted
        return self._program

    def clear(self) -> None:
        """Let go of the last batch."""
        self._program = self._made_for = None


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
    """The calls of one batch."""

    def __init__(self, model: Any, cache: BatchCache, adapters: StepAdapters | None) -> None:
        super().__init__(model, cache.rows, None if adapters is None else adapters.step_calls)
        self._kept = cache.layers
        self._before, self._columns = ctypes.c_int64(), ctypes.c_int64()
        """Shared by the calls of all layers, and changed between steps."""
        self._seen = _seen(cache)
        head = model.lm_head
        self._logits = torch.empty(cache.rows, head.out_features, dtype=model.dtype)
        norm = vars(model.model.norm)["forward"].call(self._x, self._normed)
        work = [*self._work(), norm, Product(head, self._normed, self._logits)]
        self._calls = calls_of(work)

    def run(self, tokens: Tensor, lengths: Tensor, columns: int) -> Tensor:
        """Logits [rows, vocabulary], good until the next step.

        tokens: the newest one of each row. lengths: tokens before it. columns: of the cache, with
        the one that is filled now.
        """
        self._before.value, self._columns.value = columns - 1, columns
        self._place(tokens, lengths)
        for call in self._calls:
            call.function(*call.args)
        return self._logits

    def _attend(self, number: int, attention: Any) -> Iterator[Call]:
        kept, size, rows = self._kept[number], attention.head_dim, self._x.shape[0]
        heads, kv_heads = (x.shape[1] // size for x in (self._query, self._key))
        apart = (kept.keys.stride(0), kept.keys.stride(1))
        rotated = (self._query, self._key, self._value, self._cos, self._sin)
        pointers = [tensor.data_ptr() for tensor in (*rotated, kept.keys, kept.values)]
        args = (*pointers, *apart, self._before, rows, heads, kv_heads, size)
        yield Call(required(rotation(self._x.dtype)).rotate_and_keep, args)
        args = (
            *(tensor.data_ptr() for tensor in (self._query, kept.keys, kept.values)),
            *apart,
            self._seen.data_ptr(),
            self._seen.stride(0),
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
