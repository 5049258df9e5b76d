"""A group of prompts on its way into the cache, some columns at each step."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from raylora.engine.step.prompt_pass import Packed

_LEAST = 2
"""Columns of a pass: one alone would count as a step of the running batch in the bank."""


class Prefill:
    """Prompts aligned at their last token, and the keys and values of their first columns.

    All compute the same columns: where a prompt's known beginning reaches into them, that part is
    computed again, so that a row's keys and values lie in one piece.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[str | None],
        known: Sequence[torch.Tensor | None],
        device: torch.device,
        whole: torch.Tensor | None = None,
    ) -> None:
        """known: of each prompt's beginning, [layers, 2, heads, tokens, size], or None.

        whole: one like that, of no tokens. With it the cache has all columns from the beginning,
        as packed passes want it; without it one pass after another adds its own.
        """
        self.keys = list(keys)
        self.lengths = [len(prompt) for prompt in prompts]
        self._tokens, self._mask, self._positions = left_padded(prompts, device)
        self._width = max(self.lengths)
        unknown = max(
            length - (0 if part is None else part.shape[3])
            for length, part in zip(self.lengths, known, strict=True)
        )
        self._done = self._width - min(max(unknown, _LEAST), self._width)
        self.reused = [max(0, self._done - (self._width - length)) for length in self.lengths]
        """Tokens of each prompt that are not computed."""
        self.cache = DynamicCache()
        if whole is not None:
            self.cache = _cache_of(known, self.reused, self._done, whole, self._width)
        elif self._done:
            like = next(part for part in known if part is not None)
            self.cache = _cache_of(known, self.reused, self._done, like, self._done)

    @property
    def rows(self) -> int:
        """Prompts of the group."""
        return len(self.lengths)

    @property
    def left(self) -> int:
        """Columns that are not computed yet."""
        return self._width - self._done

    @property
    def bytes(self) -> int:
        """Size of the keys and values so far."""
        layers: list[Any] = self.cache.layers
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)

    def next_columns(self, tokens: int) -> slice:
        """Take the next ones, about so many tokens with padding; they are to be computed now."""
        columns = min(max(tokens // self.rows, _LEAST), self.left)
        if self.left - columns < _LEAST:
            columns = self.left
        start = self._done
        self._done += columns
        return slice(start, self._done)

    def padded(self, columns: slice) -> dict[str, Any]:
        """What the model's modules are given for them."""
        return {
            "input_ids": self._tokens[:, columns],
            "attention_mask": self._mask[:, : columns.stop],
            "position_ids": self._positions[:, columns],
            "past_key_values": self.cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }

    def packed(self, columns: slice) -> Packed:
        """The same without padding."""
        there = self._mask[:, columns].bool()
        return Packed(
            self._tokens[:, columns][there],
            self._positions[:, columns][there],
            there.sum(1).tolist(),
            [self._width - length for length in self.lengths],
            columns.stop,
        )

    def read(self, row: int) -> torch.Tensor:
        """Keys and values of a whole prompt, [layers, 2, heads, tokens, size]."""
        layers: list[Any] = self.cache.layers
        start = self._width - self.lengths[row]
        return torch.stack(
            [
                torch.stack([part.keys[row, :, start:], part.values[row, :, start:]])
                for part in layers
            ]
        )


def left_padded(
    prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and position ids, each (rows, longest prompt)."""
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    padding = torch.tensor([[width - len(prompt)] for prompt in prompts])
    positions = torch.arange(width) - padding
    mask = (positions >= 0).long()
    return tokens.to(device), mask.to(device), positions.clamp(min=0).to(device)


def _cache_of(
    known: Sequence[torch.Tensor | None],
    reused: Sequence[int],
    done: int,
    like: torch.Tensor,
    columns: int,
) -> DynamicCache:
    """Columns of each row's known tokens, the last of them at `done`; zeros around them."""
    layers, two, heads, _, size = like.shape
    filled = like.new_zeros(layers, two, len(known), heads, columns, size)
    for row, (part, tokens) in enumerate(zip(known, reused, strict=True)):
        if part is not None and tokens:
            filled[:, :, row, :, done - tokens : done] = part[:, :, :, :tokens]
    cache = DynamicCache()
    cache.layers.extend(_layer_of(keys, values) for keys, values in filled)
    return cache


def _layer_of(keys: torch.Tensor, values: torch.Tensor) -> DynamicLayer:
    """As it is after an update with these, without their copy."""
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer
