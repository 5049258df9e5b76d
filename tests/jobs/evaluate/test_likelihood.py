"""Losses of given tokens, where the model computes in fewer bits than a token's number has."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from raylora.jobs.data.examples import IGNORED, Example
from raylora.jobs.evaluate.likelihood import Given, losses

VOCABULARY = 50_000
SURE = 20.0


class Clairvoyant:
    """A model that is sure of each next token of its input."""

    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, *, input_ids: torch.Tensor, logits_to_keep: int, **_: Any) -> Any:
        after = functional.one_hot(input_ids.roll(-1, dims=1), VOCABULARY)
        return SimpleNamespace(logits=(SURE * after)[:, -logits_to_keep:].to(self.dtype))


class NoAdapters:
    @contextmanager
    def rows(self, keys: Any) -> Iterator[None]:
        yield


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_token_is_judged_by_its_own_number(dtype: torch.dtype):
    # 256 is the largest number up to which bf16 has every whole one, 2048 that of fp16.
    rows = [[1, 257, 2049, 40_001], [5, 49_999, 301, 30_003, 2]]
    given = [Given(Example(ids, [IGNORED, *ids[1:]]), None) for ids in rows]
    found = losses(Clairvoyant(dtype), NoAdapters(), given)  # type: ignore[arg-type]
    assert [loss.tokens for loss in found] == [3, 4]
    assert [loss.mean for loss in found] == pytest.approx([0, 0], abs=1e-3)
