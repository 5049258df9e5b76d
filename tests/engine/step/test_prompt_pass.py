"""Prompts without padding: the numbers are those of the model's modules."""

from typing import Any

import pytest
import torch
from tests.engine.step.test_program import IDS, adapters
from tests.families import SIZES
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from raylora.engine.prefill import Prefill
from raylora.engine.runner import Runner
from raylora.engine.step import prompt_pass
from raylora.lora.bank.bank import Bank

BF16 = torch.bfloat16

pytestmark = pytest.mark.skipif(
    prompt_pass.prompt_attention(BF16) is None, reason="prompts are the modules' here"
)

HEADS: dict[str, Any] = {"head_dim": 32}
WIDER: dict[str, Any] = SIZES | {"hidden_size": 128}
"""With heads of as many numbers."""
MODELS: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, **HEADS, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**WIDER)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, **HEADS)),
}
PROMPTS = [IDS[0][:7], IDS[1][:23], IDS[2][:2], IDS[3]]


def make(family: str) -> Any:
    torch.manual_seed(0)
    return MODELS[family]().requires_grad_(False).eval()


def prefilled(
    runner: Runner, keys: list[str | None], tokens: int, known: list[Tensor | None]
) -> tuple[Tensor, Prefill]:
    """Logits of the first token, and the group with its cache."""
    group = runner.begin(PROMPTS, keys, known)
    logits = None
    while group.left:
        assert logits is None
        logits = runner.prefill(group, tokens)
    assert logits is not None
    return logits, group


@pytest.mark.parametrize("tokens", [1 << 20, 40, 8])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("family", MODELS)
def test_logits_and_cache_are_those_of_the_modules(
    family: str, mixed: bool, tokens: int, tmp_path, monkeypatch
) -> None:
    """In one pass and in several, with and without a known beginning."""
    keys: list[str | None] = ["a0", None, "a2", "a1"] if mixed else [None] * 4
    written = adapters(lambda: make(family), tmp_path, BF16) if mixed else {}

    def answered(*, packed: bool) -> list[Tensor]:
        model = make(family).to(BF16)
        bank = Bank(model)
        for key, directory in written.items():
            bank.add(key, directory)
        runner = Runner(model, bank)
        assert prompt_pass.fits(model) is packed
        logits, group = prefilled(runner, keys, tokens, [None] * 4)
        kept = [group.read(row) for row in range(4)]
        known = [kept[0][:, :, :, :5], kept[1][:, :, :, :16], None, kept[3][:, :, :, :16]]
        again, _ = prefilled(runner, keys, tokens, known)
        return [logits, again, *kept]

    found = answered(packed=True)
    monkeypatch.setattr(prompt_pass, "fits", lambda model: False)
    for own, other in zip(found, answered(packed=False), strict=True):
        torch.testing.assert_close(own, other, rtol=2**-6, atol=2**-4)


@pytest.mark.parametrize("groups", [1, 3, 4, 9])
@pytest.mark.parametrize("size", [32, 64, 96, 256])
@pytest.mark.parametrize(
    ("counts", "seen"), [([5], [5]), ([1, 0, 70], [40, 3, 75]), ([33, 8], [33, 201])]
)
def test_each_token_sees_its_row_up_to_itself(
    counts: list[int], seen: list[int], size: int, groups: int
) -> None:
    """seen: columns of each row after the pass, of which its tokens are the last."""
    torch.manual_seed(0)
    rows, kv_heads, columns = len(counts), 2, max(seen) + 3
    starts = torch.tensor([0, *counts]).cumsum(0)
    firsts = torch.tensor([columns - length for length in seen])
    query = (torch.randn(int(starts[-1]), kv_heads * groups, size) * 3).to(BF16)
    kept = torch.randn(2, rows, kv_heads, columns, size).to(BF16)
    for row, first in enumerate(firsts.tolist()):
        kept[:, row, :, :first] = float("nan")
    out = torch.empty_like(query)
    attend = prompt_pass.prompt_attention(BF16)
    assert attend is not None
    attend(
        *(tensor.data_ptr() for tensor in (query, kept[0], kept[1])),
        *kept[0].stride()[:2],
        *(tensor.data_ptr() for tensor in (starts, firsts)),
        *(rows, kv_heads, groups, columns, size, size**-0.5),
        out.data_ptr(),
        2,
    )
    for row, (count, length) in enumerate(zip(counts, seen, strict=True)):
        own = query[int(starts[row]) : int(starts[row + 1])].double().transpose(0, 1)
        keys, values = kept[:, row, :, columns - length :].double().repeat_interleave(groups, 1)
        mask = torch.ones(count, length, dtype=torch.bool).tril(length - count)
        scores = (own @ keys.transpose(1, 2) * size**-0.5).masked_fill(~mask, float("-inf"))
        wanted = (scores.softmax(-1) @ values).transpose(0, 1)
        found = out[int(starts[row]) : int(starts[row + 1])].double()
        torch.testing.assert_close(found, wanted, rtol=2**-6, atol=2**-6)
