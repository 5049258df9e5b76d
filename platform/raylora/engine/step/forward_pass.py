"""The layers of a Llama-like model, as calls of kernels on buffers of their own.

A model's modules spend 10 to 20 ms of a step of SmolLM2 between their products: 600 modules, their
hooks and views. The numbers here are those of the modules with these kernels.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from raylora.engine.step.ahead import Product
from raylora.lora.native import Adds, Call, Number


class ForwardPass(ABC):
    """Some tokens on their way through the layers."""

    def __init__(self, model: Any, tokens: int, adds: Adds | None) -> None:
        """tokens: room for so many. adds: of the adapters."""
        base = model.model
        self._adds = adds
        self._layers = base.layers
        self._embeddings: Tensor = base.embed_tokens.weight
        self._rotary = base.rotary_emb
        new = functools.partial(torch.empty, dtype=model.dtype)
        attention, mlp = base.layers[0].self_attn, base.layers[0].mlp
        size, hidden = attention.head_dim, self._embeddings.shape[1]
        self._x, self._normed, self._changed = (new(tokens, hidden) for _ in range(3))
        self._cos, self._sin = new(tokens, size), new(tokens, size)
        self._query = new(tokens, attention.q_proj.out_features)
        self._attended = torch.empty_like(self._query)
        self._key, self._value = (new(tokens, attention.k_proj.out_features) for _ in range(2))
        self._gate, self._up = (new(tokens, mlp.gate_proj.out_features) for _ in range(2))

    @abstractmethod
    def _count(self, each: int) -> Number:
        """So many times the tokens that there are, as calls are told."""

    @abstractmethod
    def _attend(self, number: int, attention: Any) -> Iterator[Call]:
        """From query, key and value to `_attended`, and the two into the cache of this layer."""

    def _place(self, tokens: Tensor, positions: Tensor) -> None:
        """Begin with these tokens."""
        count = len(tokens)
        torch.index_select(self._embeddings, 0, tokens, out=self._x[:count])
        cos, sin = self._rotary(self._x[None], positions[None])
        self._cos[:count] = cos[0]
        self._sin[:count] = sin[0]

    def _work(self) -> Iterator[Product | Call]:
        """From `_x` to `_x` behind the last layer."""
        for number, layer in enumerate(self._layers):
            yield from self._layer(number, layer)

    def _layer(self, number: int, layer: Any) -> Iterator[Product | Call]:
        attention, mlp = layer.self_attn, layer.mlp
        tokens = self._count(1)
        yield vars(layer.input_layernorm)["forward"].call(self._x, self._normed, tokens)
        own = f"model.layers.{number}.self_attn."
        outs = {"q_proj": self._query, "k_proj": self._key, "v_proj": self._value}
        yield from self._adapted(own, attention, self._normed, outs)
        for norm, part in (("q_norm", self._query), ("k_norm", self._key)):
            if hasattr(attention, norm):
                by_head = part.view(-1, attention.head_dim)
                heads = self._count(part.shape[1] // attention.head_dim)
                yield vars(getattr(attention, norm))["forward"].call(by_head, by_head, heads)
        yield from self._attend(number, attention)
        yield from self._adapted(own, attention, self._attended, {"o_proj": self._changed})
        yield Call(self._x.add_, (self._changed,))
        yield vars(layer.post_attention_layernorm)["forward"].call(self._x, self._normed, tokens)
        own = f"model.layers.{number}.mlp."
        # Not together as q, k, v: what both read does not fit into the second cache.
        yield from self._adapted(own, mlp, self._normed, {"gate_proj": self._gate})
        yield from self._adapted(own, mlp, self._normed, {"up_proj": self._up})
        numbers = self._count(self._gate.shape[1])
        yield vars(mlp)["forward"].call(self._gate, self._up, numbers)
        yield from self._adapted(own, mlp, self._gate, {"down_proj": self._changed})
        yield Call(self._x.add_, (self._changed,))

    def _adapted(
        self, name: str, owner: Any, x: Tensor, outs: Mapping[str, Tensor]
    ) -> Iterator[Product | Call]:
        for part, out in outs.items():
            yield Product(getattr(owner, part), x, out, self._count(1))
        if self._adds is not None:
            yield from self._adds({f"{name}{part}": out for part, out in outs.items()}, x)
