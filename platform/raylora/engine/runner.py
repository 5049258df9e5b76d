"""Forward passes of the running batch: prefill new rows, one token for all rows."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from transformers.cache_utils import DynamicCache

from raylora.engine.cache import BatchCache


class Adapters(Protocol):
    """The bank, as far as generation needs it."""

    def rows(self, keys: Sequence[str | None]) -> AbstractContextManager[object]:
        """Give each batch row of the forward passes inside its adapter; None is the base."""
        ...


class Runner:
    """A model, the bank on it, and the keys and values of the rows that are generating."""

    def __init__(self, model: Any, adapters: Adapters) -> None:
        self._model = model
        self._adapters = adapters
        self._cache = BatchCache()
        self._keys: list[str | None] = []
        self._lengths = torch.empty(0, dtype=torch.long)
        """Tokens of each row, on the device."""
        keep_head_flat(model)

    def prefill(
        self, prompts: Sequence[Sequence[int]], keys: Sequence[str | None]
    ) -> tuple[torch.Tensor, DynamicCache]:
        """Run prompts together; return logits (rows, vocabulary) of the next token, and a cache.

        The running rows are not touched: nothing has joined until `join`.
        """
        tokens, mask, positions = left_padded(prompts, self._model.device)
        cache = DynamicCache()
        with self._adapters.rows(keys), torch.inference_mode():
            logits = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        return logits, cache

    def join(
        self,
        cache: DynamicCache,
        lengths: Sequence[int],
        keys: Sequence[str | None],
        chosen: Sequence[int],
    ) -> None:
        """Take rows of a prefill into the batch: those at the indices `chosen`."""
        with torch.inference_mode():
            if len(chosen) < len(lengths):
                cache.batch_select_indices(torch.tensor(chosen, device=self._model.device))
            self._cache.join(cache, [lengths[i] for i in chosen])
        self._keys += [keys[i] for i in chosen]
        self._place_lengths()

    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """Feed each running row its newest token; logits (rows, vocabulary) of the next."""
        device = self._model.device
        with self._adapters.rows(self._keys), torch.inference_mode():
            self._cache.open_column()
            lengths = self._lengths[:, None]
            behind = torch.arange(self._cache.width, -1, -1, device=device)
            logits = self._model(
                input_ids=torch.tensor(tokens, device=device)[:, None],
                attention_mask=behind <= lengths,
                position_ids=lengths,
                past_key_values=self._cache,
                use_cache=True,
            ).logits[:, -1]
            self._cache.close_column()
            self._lengths = self._lengths + 1
        return logits

    def leave(self, row: int) -> None:
        """Drop a row; the last row takes its index."""
        with torch.inference_mode():
            self._cache.leave(row)
        self._keys[row] = self._keys[-1]
        self._keys.pop()
        self._place_lengths()

    def clear(self) -> None:
        """Drop every row."""
        self._cache.clear()
        self._keys = []

    def _place_lengths(self) -> None:
        self._lengths = torch.tensor(self._cache.lengths, device=self._model.device)


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


def keep_head_flat(model: Any) -> None:
    """Give the output layer contiguous input.

    The last position of a padded prompt is a strided slice, for which torch 2.13 copies the
    head's weight once per row (SmolLM2: 57 MB a row) where that weight is frozen.
    """
    model.get_output_embeddings().register_forward_pre_hook(_contiguous)


def _contiguous(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].contiguous(), *args[1:])
