"""Forward passes: prompts some columns at a time, one token for all running rows."""

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol
from weakref import WeakSet

import torch

from raylora.engine.cache import BatchCache
from raylora.engine.prefill import Prefill
from raylora.engine.step import prompt_pass
from raylora.engine.step.attention import use_step_attention
from raylora.engine.step.few_rows import use_few_rows
from raylora.engine.step.pointwise import use_pointwise
from raylora.engine.step.program import StepAdapters, StepPrograms
from raylora.engine.step.prompt_pass import PromptPass


class Adapters(Protocol):
    """The bank, as far as generation needs it."""

    def rows(self, keys: Sequence[str | None]) -> AbstractContextManager[object]:
        """Give each batch row of the forward passes inside its adapter; None is the base."""
        ...

    @property
    def in_force(self) -> StepAdapters | None:
        """Inside of `rows`, what its adapters add to a step; None where that is nothing."""
        ...

    def stamp(self, key: str) -> Hashable:
        """What the tensors under this key are; other ones under the same key have another."""
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
        self.token_bytes = token_bytes(model)
        keep_head_flat(model)
        use_few_rows(model)
        use_pointwise(model)
        use_step_attention(model)
        self._programs = StepPrograms(model)
        self._whole = no_tokens(model) if prompt_pass.fits(model) else None
        """With it prompts are packed."""

    @property
    def bytes(self) -> int:
        """Keys and values of the running rows."""
        return self._cache.bytes

    def begin(
        self,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[str | None],
        known: Sequence[torch.Tensor | None],
    ) -> Prefill:
        """Prompts to prefill together; the running rows are not touched until `join`."""
        with torch.inference_mode():
            return Prefill(prompts, keys, known, self._model.device, self._whole)

    def prefill(self, group: Prefill, tokens: int) -> torch.Tensor | None:
        """Compute about so many tokens; after the last, logits (rows, vocabulary) of the next."""
        columns = group.next_columns(tokens)
        with self._adapters.rows(group.keys), torch.inference_mode():
            if self._whole is None:
                logits = self._model(**group.padded(columns)).logits[:, -1]
                return None if group.left else logits
            packed, adapters = group.packed(columns), self._adapters.in_force
            adds = None if adapters is None else adapters.prompt_calls(packed.counts)
            prompt_pass = PromptPass(self._model, packed, group.cache, adds)
            prompt_pass.run()
            return None if group.left else prompt_pass.logits()

    def join(self, group: Prefill, chosen: Sequence[int], longest: int) -> None:
        """Take rows of a group into the batch: those at the indices `chosen`.

        longest: tokens that any row of the batch may come to have.
        """
        with torch.inference_mode():
            if len(chosen) < group.rows:
                indices = torch.tensor(chosen, device=self._model.device)
                group.cache.batch_select_indices(indices)
            self._cache.join(group.cache, [group.lengths[i] for i in chosen], longest)
        self._keys += [group.keys[i] for i in chosen]
        self._place_lengths()

    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """Feed each running row its newest token; logits (rows, vocabulary) of the next.

        They are good until the next step.
        """
        device = self._model.device
        with self._adapters.rows(self._keys), torch.inference_mode():
            self._cache.open_column()
            newest = torch.tensor(tokens, device=device)
            program = self._programs.of(self._cache, self._adapters.in_force)
            if program is not None:
                logits = program.run(newest, self._lengths, self._cache.width + 1)
            else:
                logits = self._by_modules(newest)
            self._cache.close_column()
            self._lengths = self._lengths + 1
        return logits

    def _by_modules(self, newest: torch.Tensor) -> torch.Tensor:
        self._cache.show()
        lengths = self._lengths[:, None]
        behind = torch.arange(self._cache.width, -1, -1, device=newest.device)
        return self._model(
            input_ids=newest[:, None],
            attention_mask=behind <= lengths,
            position_ids=lengths,
            past_key_values=self._cache,
            use_cache=True,
        ).logits[:, -1]

    def read(self, row: int) -> torch.Tensor:
        """Keys and values of a running row, [layers, 2, heads, tokens, size]."""
        with torch.inference_mode():
            return self._cache.read(row)

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


def no_tokens(model: Any) -> torch.Tensor:
    """Keys and values of none, [layers, 2, heads, 0, size]."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    shape = (config.num_hidden_layers, 2, kept, 0, size)
    return torch.empty(shape, dtype=model.dtype, device=model.device)


def token_bytes(model: Any) -> int:
    """Keys and values of one token in all layers."""
    layers, two, heads, _, size = no_tokens(model).shape
    return layers * two * heads * size * model.dtype.itemsize


def keep_head_flat(model: Any) -> None:
    """Give the output layer contiguous input.

    The last position of a padded prompt is a strided slice, for which torch 2.13 copies the
    head's weight once per row (SmolLM2: 57 MB a row) where that weight is frozen. A model that
    several engines are made on, one after another, has the hook once.
    """
    head: torch.nn.Module = model.get_output_embeddings()
    if head not in _flat_heads:
        head.register_forward_pre_hook(_contiguous)
        _flat_heads.add(head)


_flat_heads = WeakSet[torch.nn.Module]()


def _contiguous(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].contiguous(), *args[1:])
