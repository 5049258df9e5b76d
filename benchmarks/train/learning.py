"""BANKING77 with 10 rows an intent: what ours learns against TRL's SFTTrainer, same budget.

Same rows, steps, batch, rank, rate, schedule and number format. Both adapters answer the whole
test set in the same engine.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

import torch

from benchmarks.bars.banking import (
    BATCH,
    NEW_TOKENS,
    compared,
    messages,
    train_ours,
    train_peer,
)
from benchmarks.bars.bar import Bar, not_measured
from benchmarks.bars.bench_data import Question, banking77
from benchmarks.bars.sandbox import sandbox
from benchmarks.bars.smollm2 import Base, smollm2
from raylora.config.model_spec import ModelSpec
from raylora.engine.generator import Engine, generate
from raylora.engine.prompts import chat_prompt
from raylora.engine.request import Request
from raylora.engine.sampling import Sampling
from raylora.lora.bank.bank import Bank
from raylora.lora.base import load_base
from raylora.lora.devices import pick

PER_INTENT = 10
EPOCHS = 1
DTYPE = "bf16"
CACHE_BYTES = 2**31
"""Of keys and values: the system message is computed once, which takes a quarter of the time."""


def measure() -> Iterator[Bar]:
    """Train both, answer, compare row by row."""
    name = "BANKING77 accuracy against TRL"
    data = banking77()
    if data is None:
        yield not_measured(name, "set RAYLORA_BENCH_DATA to the folder that has banking77/")
        return
    base = smollm2()
    rows = data.few(PER_INTENT)
    steps = math.ceil(EPOCHS * len(rows) / BATCH)
    with sandbox() as box:
        ours = train_ours(box, rows, steps, "auto")
        box.raylora("cluster", "down").expect()
        theirs = train_peer("trl_sft", box.folder, base, rows, steps, DTYPE)
        right = _answer(base, {"ours": ours, "trl": theirs}, data.test)
    ours_right, trl_right = right["ours"], right["trl"]
    detail = (
        f"{100 * mean(ours_right):.1f} % against {100 * mean(trl_right):.1f} % of "
        f"{len(data.test)}, {steps} steps of {BATCH} of {len(rows)} rows, rank 16"
    )
    yield from compared(name, ours_right, trl_right, detail)


def _answer(
    base: Base, adapters: dict[str, Path], questions: Sequence[Question]
) -> dict[str, list[float]]:
    """By adapter, 1 for each question whose greedy answer is its intent, else 0."""
    model = load_base(base.local, ModelSpec(), pick())
    bank = Bank(model)
    for key, folder in adapters.items():
        bank.add(key, folder, manifest_required=False)
    engine = Engine(model, base.tokenizer, bank, max_batch_size=64, cache_bytes=CACHE_BYTES)
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=0)
    right: dict[str, list[float]] = {}
    with torch.inference_mode():
        for key in adapters:
            requests = [
                Request(
                    f"{key}/{i}",
                    tuple(chat_prompt(base.tokenizer, messages(question)[:-1])),
                    key,
                    sampling,
                )
                for i, question in enumerate(questions)
            ]
            answers = generate(engine, requests)
            right[key] = [
                float(answer.text.strip() == question.intent)
                for answer, question in zip(answers, questions, strict=True)
            ]
    return right
