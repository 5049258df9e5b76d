"""Some columns of prompts through a Llama-like model on a CPU, without what pads the shorter ones.

The tokens lie one after another, row by row. 16 prompts of SmolLM2, of 81 tokens on average and of
88 at most, in bf16 on one core of an AMD EPYC (Zen 4): 1.82 s by the modules, 1.60 so.
"""

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from raylora.engine.step import program
from raylora.engine.step.ahead import calls_of
from raylora.engine.step.forward_pass import ForwardPass
from raylora.engine.step.rotation import rotation
from raylora.lora.bank.kernel import load_for_prompts
from raylora.lora.devices import BF16_DOTS, cpu_flags
from raylora.lora.native import Adds, Call, library, required

_SOURCE = Path(__file__).with_name("prompt_attention_bf16.c")
_PIECE = 32
"""Of which a head's size is to be a multiple."""


class Packed(NamedTuple):
    """Tokens of some rows, row by row: the last ones that are in the cache after the pass."""

    ids: Tensor
    positions: Tensor
    counts: Sequence[int]
    """Tokens of each row."""
    firsts: Sequence[int]
    """Column of the cache in which each row begins."""
    columns: int
    """Of the cache that are filled after the pass."""


def fits(model: Any) -> bool:
    """Whether a model's prompts can be computed so."""
    if not program.fits(model) or prompt_attention(model.dtype) is None:
        return False
    if load_for_prompts(model.dtype, model.dtype) is None:
        return False
    return model.model.layers[0].self_attn.head_dim % _PIECE == 0


@functools.cache
def prompt_attention(dtype: torch.dtype) -> Callable[..., None] | None:
    """The function of prompt_attention_bf16.c; None where it cannot be had."""
    if dtype is not torch.bfloat16:
        return None
    if BF16_DOTS not in cpu_flags():
        return None
    found = library(_SOURCE, dtype)
    if found is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    attend = found.prompt_attention
    attend.argtypes = [*(pointer,) * 3, number, number, pointer, pointer, *(number,) * 5]
    attend.argtypes += [ctypes.c_float, pointer, ctypes.c_int]
    attend.restype = None
    return attend


class PromptPass(ForwardPass):
    """One pass, whose keys and values go to their places in a cache that has all columns."""

    def __init__(self, model: Any, packed: Packed, cache: DynamicCache, adds: Adds | None) -> None:
        super().__init__(model, len(packed.ids), adds)
        self._model = model
        self._packed = packed
        self._kept: Sequence[Any] = cache.layers
        counts = torch.tensor(packed.counts)
        ends = counts.cumsum(0)
        self._last = ends - 1
        self._starts = torch.cat([torch.zeros(1, dtype=torch.long), ends])
        self._firsts = torch.tensor(packed.firsts)
        self._rows = torch.arange(len(counts)).repeat_interleave(counts)
        behind = ends.repeat_interleave(counts) - torch.arange(len(packed.ids))
        self._columns = packed.columns - behind
        """Of each token."""

    def run(self) -> None:
        """Fill the cache."""
        self._place(self._packed.ids, self._packed.positions)
        for one in self._work():
            call = calls_of([one])[0]
            call.function(*call.args)

    def logits(self) -> Tensor:
        """[rows, vocabulary] behind each row's last token, after `run`."""
        last = self._x.index_select(0, self._last)
        return self._model.lm_head(self._model.model.norm(last))

    def _count(self, each: int) -> int:
        return each * len(self._packed.ids)

    def _attend(self, number: int, attention: Any) -> Iterator[Call]:
        kept, size, rows = self._kept[number], attention.head_dim, len(self._packed.counts)
        heads, kv_heads = (x.shape[1] // size for x in (self._query, self._key))
        apart = (kept.keys.stride(0), kept.keys.stride(1))
        threads = torch.get_num_threads()
        rotated = (self._query, self._key, self._value, self._cos, self._sin)
        args = (
            *(tensor.data_ptr() for tensor in (*rotated, kept.keys, kept.values)),
            *apart,
            self._rows.data_ptr(),
            self._columns.data_ptr(),
            len(self._rows),
            heads,
            kv_heads,
            size,
            threads,
        )
        yield Call(required(rotation(self._x.dtype)).rotate_and_place, args)
        args = (
            *(tensor.data_ptr() for tensor in (self._query, kept.keys, kept.values)),
            *apart,
            self._starts.data_ptr(),
            self._firsts.data_ptr(),
            rows,
            kv_heads,
            heads // kv_heads,
            self._packed.columns,
            size,
            attention.scaling,
            self._attended.data_ptr(),
            threads,
        )
        yield Call(required(prompt_attention(self._x.dtype)), args)
