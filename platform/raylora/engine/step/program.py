"""A step of a Llama-like model on a CPU as a list of calls: of kernels, on buffers of its own.

A model's modules spend 10 to 20 ms of a step of SmolLM2 between their products: 600 modules, their
hooks and views. Here all that a batch's steps have in common is worked out once, and a step is 400
to 700 calls with their arguments ready. The numbers are those of the modules with these kernels.
"""

import ctypes
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from raylora.engine.cache import BatchCache
from raylora.engine.step.ahead import Product, calls_of
from raylora.engine.step.attention import NAME, attention_kernel
from raylora.engine.step.few_rows import FewRows
from raylora.engine.step.pointwise import Gate, Norm
from raylora.lora.narrow import NarrowLinear
from raylora.lora.native import Call, library

FAMILIES = frozenset(f"{family}ForCausalLM" for family in ("Llama", "Mistral", "Qwen2", "Qwen3"))
"""Whose layers compute as here: q, k, v apart, rotation of whole heads in each layer."""

_SOURCE = Path(__file__).with_name("rotation.c")


class StepAdapters(Protocol):
    """What the adapters of a batch add, as `Plan` gives it."""

    def step_version(self) -> tuple[int, ...] | None:
        """What `step_calls` are good for; None where there are none."""
        ...

    def step_calls(self, outs: Mapping[str, Tensor], x: Tensor) -> Iterator[Call]:
        """What adds to each layer's output [rows, out] for `x` [rows, in], which they share."""
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
    if getattr(config, "sliding_window", None) is not None or _kernel(model.dtype) is None:
        return False
    base = model.model
    size = base.layers[0].self_attn.head_dim
    return (
        2 * base.rotary_emb.inv_freq.numel() == size
        and all(map(_layer_fits, base.layers))
        and isinstance(vars(base.norm).get("forward"), Norm)
        and _linear_fits(model.lm_head)
    )


class StepProgram:
    """The calls of one batch, and its buffers."""

    def __init__(self, model: Any, cache: BatchCache, adapters: StepAdapters | None) -> None:
        base, rows = model.model, cache.rows
        self._adapters = adapters
        self._embeddings: Tensor = base.embed_tokens.weight
        self._rotary = base.rotary_emb
        self._before, self._columns = ctypes.c_int64(), ctypes.c_int64()
        """Shared by the calls of all layers, and changed between steps."""
        new = functools.partial(torch.empty, dtype=model.dtype)
        attention, mlp = base.layers[0].self_attn, base.layers[0].mlp
        size, hidden = attention.head_dim, self._embeddings.shape[1]
        self._x, self._normed, self._changed = (new(rows, hidden) for _ in range(3))
        self._cos, self._sin = new(rows, size), new(rows, size)
        self._query = new(rows, attention.q_proj.out_features)
        self._attended = torch.empty_like(self._query)
        self._key, self._value = (new(rows, attention.k_proj.out_features) for _ in range(2))
        self._gate, self._up = (new(rows, mlp.gate_proj.out_features) for _ in range(2))
        self._logits = new(rows, model.lm_head.out_features)
        self._seen = _seen(cache)
        work = [
            *(
                one
                for number, layer in enumerate(base.layers)
                for one in self._layer(f"model.layers.{number}.", layer, cache.layers[number])
            ),
            vars(base.norm)["forward"].call(self._x, self._normed),
            Product(model.lm_head, self._normed, self._logits),
        ]
        self._calls = calls_of(work)

    def run(self, tokens: Tensor, lengths: Tensor, columns: int) -> Tensor:
        """Logits [rows, vocabulary], good until the next step.

        tokens: the newest one of each row. lengths: tokens before it. columns: of the cache, with
        the one that is filled now.
        """
        self._before.value, self._columns.value = columns - 1, columns
        torch.index_select(self._embeddings, 0, tokens, out=self._x)
        cos, sin = self._rotary(self._x[:, None], lengths[:, None])
        self._cos.copy_(cos[:, 0])
        self._sin.copy_(sin[:, 0])
        for call in self._calls:
            call.function(*call.args)
        return self._logits

    def _layer(self, name: str, layer: Any, kept: Any) -> Iterator[Product | Call]:
        attention, mlp = layer.self_attn, layer.mlp
        yield vars(layer.input_layernorm)["forward"].call(self._x, self._normed)
        own = f"{name}self_attn."
        outs = {"q_proj": self._query, "k_proj": self._key, "v_proj": self._value}
        yield from self._adapted(own, attention, self._normed, outs)
        yield from self._attention(attention, kept)
        yield from self._adapted(own, attention, self._attended, {"o_proj": self._changed})
        yield Call(self._x.add_, (self._changed,))
        yield vars(layer.post_attention_layernorm)["forward"].call(self._x, self._normed)
        own = f"{name}mlp."
        # Not together as q, k, v: what both read does not fit into the second cache.
        yield from self._adapted(own, mlp, self._normed, {"gate_proj": self._gate})
        yield from self._adapted(own, mlp, self._normed, {"up_proj": self._up})
        yield vars(mlp)["forward"].call(self._gate, self._up)
        yield from self._adapted(own, mlp, self._gate, {"down_proj": self._changed})
        yield Call(self._x.add_, (self._changed,))

    def _adapted(
        self, name: str, owner: Any, x: Tensor, outs: Mapping[str, Tensor]
    ) -> Iterator[Product | Call]:
        for part, out in outs.items():
            yield Product(getattr(owner, part), x, out)
        if self._adapters is not None:
            by_name = {f"{name}{part}": out for part, out in outs.items()}
            yield from self._adapters.step_calls(by_name, x)

    def _attention(self, attention: Any, kept: Any) -> Iterator[Call]:
        size, rows = attention.head_dim, len(self._x)
        heads, kv_heads = (x.shape[1] // size for x in (self._query, self._key))
        for norm, part in (("q_norm", self._query), ("k_norm", self._key)):
            if hasattr(attention, norm):
                by_head = part.view(-1, size)
                yield vars(getattr(attention, norm))["forward"].call(by_head, by_head)
        apart = (kept.keys.stride(0), kept.keys.stride(1))
        rotated = (self._query, self._key, self._value, self._cos, self._sin)
        pointers = [tensor.data_ptr() for tensor in (*rotated, kept.keys, kept.values)]
        args = (*pointers, *apart, self._before, rows, heads, kv_heads, size)
        yield Call(_required(_kernel(self._x.dtype)), args)
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
        yield Call(_required(attention_kernel(self._x.dtype)), args)


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


@functools.cache
def _kernel(dtype: torch.dtype) -> Callable[..., None] | None:
    found = library(_SOURCE, dtype)
    if found is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    found.rotate_and_keep.argtypes = [*(pointer,) * 7, *(number,) * 7]
    found.rotate_and_keep.restype = None
    return found.rotate_and_keep


def _required(kernel: Callable[..., None] | None) -> Callable[..., None]:
    assert kernel is not None, "fits() has looked"
    return kernel
