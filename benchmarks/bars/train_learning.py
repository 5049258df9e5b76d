"""BANKING77 with 10 rows an intent: what ours learns against TRL's SFTTrainer, same budget.

Same rows, steps, batch, rank, rate, schedule and number format. Both adapters answer the whole
test set in the same engine; the answer must be the intent's name and nothing else.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.bars import chat_rows, peer
from benchmarks.bars.bar import Bar, at_least, not_measured
from benchmarks.bars.bench_data import Question, banking77
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import Base, smollm2
from benchmarks.bars.train_job import run_job
from raylora.config.model_spec import ModelSpec
from raylora.engine.generator import Engine, generate
from raylora.engine.prompts import chat_prompt
from raylora.engine.request import Request
from raylora.engine.sampling import Sampling
from raylora.lora.bank import Bank
from raylora.lora.base import load_base
from raylora.lora.devices import pick

PER_INTENT = 10
EPOCHS = 1
BATCH = 8
RATE = 1e-3
SYSTEM = "Name the intent of the customer's message."
NEW_TOKENS = 20
"""The longest intent has 17."""
RESAMPLES = 10_000
WORST = -1.0
"""Points of accuracy."""


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
        ours = _ours(box, rows, steps)
        box.raylora("cluster", "down").expect()
        theirs = _theirs(box.folder, base, rows, steps)
        right = _answer(base, {"ours": ours, "trl": theirs}, data.test)
    difference = 100 * (right["ours"].mean() - right["trl"].mean())
    low, high = _interval(right["ours"], right["trl"])
    detail = (
        f"points; {100 * right['ours'].mean():.1f} % against {100 * right['trl'].mean():.1f} % "
        f"of {len(data.test)}, {steps} steps of {BATCH} of {len(rows)} rows, rank 16"
    )
    yield at_least(name, [float(difference)], WORST, "", detail)
    yield at_least(
        "  upper end of its 95 % interval",
        [high],
        0,
        "",
        f"paired bootstrap {low:.2f}..{high:.2f}",
    )


def _ours(box: Sandbox, questions: Sequence[Question], steps: int) -> Path:
    rows = box.folder / "banking.jsonl"
    conversations = [{"messages": _messages(question)} for question in questions]
    chat_rows.write_lines(rows, conversations)
    return run_job(
        box,
        rows,
        f"training.global_batch_size={BATCH}",
        f"training.micro_batch_size={BATCH}",
        f"training.learning_rate={RATE}",
        f"training.max_steps={steps}",
        f"training.save_steps={steps}",
    ).adapter


def _theirs(folder: Path, base: Base, questions: Sequence[Question], steps: int) -> Path:
    rows, saved = folder / "banking.tokens.jsonl", folder / "trl"
    encoded = [chat_rows.encode(_messages(q), base.tokenizer) for q in questions]
    chat_rows.write_lines(rows, encoded)
    peer.run(
        "trl_sft",
        threads=2,
        steps=steps,
        model=str(base.path),
        tokens=str(rows),
        dtype="bf16",
        batch=BATCH,
        order="random",
        learning_rate=RATE,
        save=str(saved),
    )
    return saved


def _answer(
    base: Base, adapters: dict[str, Path], questions: Sequence[Question]
) -> dict[str, np.ndarray]:
    """By adapter, 1 for each question whose greedy answer is its intent, else 0."""
    model = load_base(base.local, ModelSpec(), pick())
    bank = Bank(model)
    for key, folder in adapters.items():
        bank.add(key, folder, manifest_required=False)
    engine = Engine(model, base.tokenizer, bank, max_batch_size=64)
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=0)
    right: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for key in adapters:
            requests = [
                Request(
                    f"{key}/{i}",
                    tuple(chat_prompt(base.tokenizer, _messages(question)[:-1])),
                    key,
                    sampling,
                )
                for i, question in enumerate(questions)
            ]
            answers = generate(engine, requests)
            right[key] = np.array(
                [
                    answer.text.strip() == question.intent
                    for answer, question in zip(answers, questions, strict=True)
                ],
                dtype=float,
            )
    return right


def _interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """2.5 and 97.5 % of the difference in points when the questions are drawn anew."""
    pairs = np.array([np.sum(ours > theirs), np.sum(ours < theirs), np.sum(ours == theirs)])
    drawn = np.random.default_rng(0).multinomial(len(ours), pairs / len(ours), RESAMPLES)
    low, high = np.percentile(100 * (drawn[:, 0] - drawn[:, 1]) / len(ours), [2.5, 97.5])
    return float(low), float(high)


def _messages(question: Question) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question.text},
        {"role": "assistant", "content": question.intent},
    ]
