"""A thousand mixed requests over eight adapters and the base, against PEFT with each alone.

fp32: the very tokens. bf16 and nf4: teacher-forced logits, beside what PEFT itself differs by when
the batch around a row changes. A row that is given its neighbour's adapter must fail both.
"""

import asyncio
import gc
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from benchmarks.bars.bar import Bar, at_least, at_most, holds
from benchmarks.bars.smollm2 import Base, smollm2
from benchmarks.serve.adapter_files import write_adapters
from benchmarks.serve.prompts import prompts
from raylora.config.model_spec import DType, ModelSpec, Quantization
from raylora.engine.generator import Engine
from raylora.engine.request import Request
from raylora.engine.sampling import Sampling
from raylora.engine.scoring import score
from raylora.lora.bank.bank import Bank
from raylora.lora.base import load_base
from raylora.lora.devices import pick
from raylora.serve.engine_thread import EngineThread

ADAPTERS = 8
PROMPTS = 12
REQUESTS = 1000
NEW_TOKENS = 12
"""PEFT alone answers each of the 108 pairs of a model and a prompt once, a token at a time."""
BATCH = 16
ROWS = 32
"""Rows whose logits are compared."""
FORMATS = {
    "bf16": (DType.BF16, Quantization.NONE),
    "nf4": (DType.BF16, Quantization.NF4),
}
BASE = "__base__"
"""PEFT's name for no adapter."""

Pair = tuple[str | None, int]
"""The adapter that answers, and the number of the prompt."""
Answered = tuple[list[int], int]
"""Token ids of a prompt with its answer, and how many of them are the answer's."""
Run = Callable[[Sequence[Answered], Sequence[str | None]], list[Tensor]]


@dataclass(frozen=True)
class Case:
    """The base on disk, its adapters, and what is asked."""

    base: Base
    adapters: Mapping[str, Path]
    prompts: Sequence[Sequence[int]]

    @property
    def pairs(self) -> list[Pair]:
        """Every model with every prompt."""
        return [(key, i) for key in (*self.adapters, None) for i in range(len(self.prompts))]

    def model(self, dtype: DType, quantization: Quantization) -> Any:
        """A fresh base in a number format."""
        spec = ModelSpec(dtype=dtype, quantization=quantization)
        return load_base(self.base.local, spec, pick())

    def peft(self, dtype: DType, quantization: Quantization) -> Any:
        """The same base with all adapters in PEFT."""
        model = self.model(dtype, quantization)
        first, *others = self.adapters
        peft = PeftModel.from_pretrained(
            model, self.adapters[first], adapter_name=first, autocast_adapter_dtype=False
        )
        for key in others:
            peft.load_adapter(self.adapters[key], adapter_name=key, autocast_adapter_dtype=False)
        return peft.eval()

    def bank(self, model: Any) -> Bank:
        """Our bank on a base."""
        bank = Bank(model)
        for key, path in self.adapters.items():
            bank.add(key, path)
        return bank

    def neighbour(self, key: str | None) -> str:
        """A wrong adapter for a row."""
        keys = list(self.adapters)
        return keys[0] if key is None else keys[(keys.index(key) + 1) % len(keys)]


def measure() -> Iterator[Bar]:
    """Tokens in fp32, then logits in bf16 and nf4."""
    base = smollm2()
    with tempfile.TemporaryDirectory(prefix="rlb-") as folder:
        adapters = write_adapters(Path(folder), base.local, ADAPTERS)
        case = Case(base, adapters, prompts(base, PROMPTS))
        alone = _alone(case)
        yield from _tokens(case, alone)
        for name, (dtype, quantization) in FORMATS.items():
            yield from _logits(case, name, alone, dtype, quantization)


def _alone(case: Case) -> dict[Pair, tuple[int, ...]]:
    """Greedy tokens of each pair from PEFT, one row at a time."""
    peft = case.peft(DType.FP32, Quantization.NONE)
    found: dict[Pair, tuple[int, ...]] = {}
    for key, number in case.pairs:
        ids = torch.tensor([case.prompts[number]])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
        with torch.inference_mode():
            if key is None:
                with peft.disable_adapter():
                    out = peft.generate(**given, **options)
            else:
                peft.set_adapter(key)
                out = peft.generate(**given, **options)
        found[key, number] = tuple(out[0, ids.shape[1] :].tolist())
    del peft
    gc.collect()
    return found


def _tokens(case: Case, alone: Mapping[Pair, tuple[int, ...]]) -> Iterator[Bar]:
    model = case.model(DType.FP32, Quantization.NONE)
    engine = Engine(model, case.base.tokenizer, case.bank(model), max_batch_size=BATCH)
    thread = EngineThread(engine, step_timeout_s=120)
    thread.start()
    # A fifth of the pairs has its neighbour's answer too: a row that is mixed up would not show.
    telling = [(k, i) for k, i in case.pairs if alone[k, i] != alone[case.neighbour(k), i]]
    draw = random.Random(0)
    asked = [draw.choice(telling) for _ in range(REQUESTS)]
    try:
        served = asyncio.run(_served(thread, case, asked))
        wrong = asyncio.run(_served(thread, case, [(case.neighbour(k), i) for k, i in telling]))
    finally:
        thread.stop()
    same = sum(tokens == alone[pair] for pair, tokens in zip(asked, served, strict=True))
    noticed = sum(tokens != alone[pair] for pair, tokens in zip(telling, wrong, strict=True))
    yield holds("fp32 tokens of 1,000 mixed = PEFT's", same, len(asked), "requests")
    yield holds("  control: a wrong adapter is noticed", noticed, len(telling), "pairs")
    del model, thread
    gc.collect()


async def _served(
    thread: EngineThread, case: Case, asked: Sequence[Pair]
) -> list[tuple[int, ...]]:
    """All at once."""

    async def one(name: str, pair: Pair) -> tuple[int, ...]:
        key, number = pair
        request = Request(name, tuple(case.prompts[number]), key, Sampling(NEW_TOKENS))
        async for event in thread.stream([request]):
            if event.completion is not None:
                if event.completion.error:
                    raise RuntimeError(event.completion.error)
                return event.completion.token_ids
        raise RuntimeError("a stream ended without an answer")

    return await asyncio.gather(*(one(str(i), pair) for i, pair in enumerate(asked)))


def _logits(
    case: Case,
    name: str,
    alone: Mapping[Pair, tuple[int, ...]],
    dtype: DType,
    quantization: Quantization,
) -> Iterator[Bar]:
    """The answers' logits: PEFT alone, PEFT in mixed batches, ours in the same mixed batches."""
    asked = random.Random(1).sample(case.pairs, ROWS)
    rows = [(list(case.prompts[i]) + list(alone[key, i]), len(alone[key, i])) for key, i in asked]
    keys = [key for key, _ in asked]
    singly, mixed = _theirs(case.peft(dtype, quantization), rows, keys)
    gc.collect()
    right, wrong = _ours(case, case.model(dtype, quantization), rows, keys)
    noise = _largest(singly, mixed)
    yield at_most(
        f"{name} logits of mixed rows, from PEFT's",
        [_largest(mixed, right)],
        noise,
        "",
        f"target: PEFT batch 1 against 16; ours against batch 1: {_largest(singly, right):.4g}",
    )
    control = min(_largest([a], [b]) for a, b in zip(mixed, wrong, strict=True))
    yield at_least(f"  control: {name}, a wrong adapter", [control], noise)


def _theirs(
    peft: Any, rows: Sequence[Answered], keys: Sequence[str | None]
) -> tuple[list[Tensor], list[Tensor]]:
    """PEFT's logits, one row at a time and in mixed batches."""
    run = partial(_peft_logits, peft)
    singly = [run([row], [key])[0] for row, key in zip(rows, keys, strict=True)]
    return singly, _in_batches(run, rows, keys)


def _ours(
    case: Case, model: Any, rows: Sequence[Answered], keys: Sequence[str | None]
) -> tuple[list[Tensor], list[Tensor]]:
    """Ours in the same mixed batches, with each row's own adapter and with its neighbour's."""
    bank = case.bank(model)

    def run(part: Sequence[Answered], own: Sequence[str | None]) -> list[Tensor]:
        scored = score(model, bank, [(ids, key) for (ids, _), key in zip(part, own, strict=True)])
        return [
            logits[-length - 1 : -1].float()
            for logits, (_, length) in zip(scored, part, strict=True)
        ]

    right = _in_batches(run, rows, keys)
    return right, _in_batches(run, rows, [case.neighbour(key) for key in keys])


def _in_batches(run: Run, rows: Sequence[Answered], keys: Sequence[str | None]) -> list[Tensor]:
    return [
        logits
        for at in range(0, len(rows), BATCH)
        for logits in run(rows[at : at + BATCH], keys[at : at + BATCH])
    ]


def _peft_logits(peft: Any, rows: Sequence[Answered], keys: Sequence[str | None]) -> list[Tensor]:
    """Logits that predict each row's answer, of one left-padded batch."""
    width = max(len(ids) for ids, _ in rows)
    tokens = torch.tensor([[0] * (width - len(ids)) + ids for ids, _ in rows])
    padding = torch.tensor([[width - len(ids)] for ids, _ in rows])
    positions = torch.arange(width) - padding
    with torch.inference_mode():
        logits = peft(
            input_ids=tokens,
            attention_mask=(positions >= 0).long(),
            position_ids=positions.clamp(min=0),
            adapter_names=[key or BASE for key in keys],
            use_cache=False,
        ).logits
    return [logits[i, -length - 1 : -1].float().clone() for i, (_, length) in enumerate(rows)]


def _largest(ones: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ones, others, strict=True))
