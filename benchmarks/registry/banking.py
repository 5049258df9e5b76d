"""Twenty classes of BANKING77: base against adapter, and ours against PEFT with HF's Trainer.

Same rows, steps, batch, rank, rate, schedule and number format for both. Base and both adapters
answer the whole test set of these classes in one `raylora evaluate`. Planned for 10 minutes on two
cores.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from benchmarks.bars import chat_rows
from benchmarks.bars.banking import (
    BATCH,
    NEW_TOKENS,
    compared,
    messages,
    train_ours,
    train_peer,
)
from benchmarks.bars.bar import Bar, not_measured, shown
from benchmarks.bars.bench_data import Question, banking77
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import smollm2
from raylora.config.evaluate_spec import BASE
from raylora.jobs.evaluate import predictions
from raylora.tracking.bootstrap import Interval, bootstrap, paired_bootstrap

CLASSES = 20
PER_INTENT = 20
EPOCHS = 2
DTYPE = "fp32"
"""What a CPU without bf16 units is fast with."""
EVALUATION_S = 1500.0


def measure() -> Iterator[Bar]:
    """Train both, ask base and both at once, compare row by row."""
    name = "BANKING77, 20 classes, against HF Trainer"
    data = banking77()
    if data is None:
        yield not_measured(name, "set RAYLORA_BENCH_DATA to the folder that has banking77/")
        return
    base = smollm2()
    chosen = _classes([question.intent for question in data.train])
    rows = [question for question in data.few(PER_INTENT) if question.intent in chosen]
    asked = [question for question in data.test if question.intent in chosen]
    steps = EPOCHS * len(rows) // BATCH
    with sandbox() as box:
        ours = train_ours(box, rows, steps, DTYPE)
        box.raylora("cluster", "down").expect()
        theirs = train_peer("hf_trainer", box.folder, base, rows, steps, DTYPE)
        right = _ask(box, [ours, theirs], asked)
    alone, mine, peers = (right[subject] for subject in (BASE, str(ours), str(theirs)))
    for label, scores in (("base", alone), ("adapter", mine), ("HF Trainer", peers)):
        yield _shown(f"{label} accuracy", bootstrap(scores))
    yield _shown("  adapter over base", paired_bootstrap(mine, alone))
    budget = f"{steps} steps of {BATCH} of {len(rows)} rows, rank 16, {DTYPE}"
    yield from compared(name, mine, peers, f"{len(asked)} questions, {budget}")


def _classes(intents: Sequence[str]) -> set[str]:
    return set(random.Random(0).sample(sorted(set(intents)), CLASSES))


def _shown(name: str, found: Interval) -> Bar:
    interval = f"95 % {100 * found.low:.1f}..{100 * found.high:.1f}, {found.rows} rows"
    return shown(name, [100 * found.mean], " points", interval)


def _ask(
    box: Sandbox, adapters: Sequence[Path], questions: Sequence[Question]
) -> dict[str, list[float]]:
    """By subject, 1 for each question whose answer is its intent, else 0."""
    rows, spec = box.folder / "asked.jsonl", box.folder / "asked.yaml"
    chat_rows.write_lines(rows, [{"messages": messages(question)} for question in questions])
    settings = {
        "name": "banking",
        "model": {"dtype": DTYPE},
        "subjects": [BASE, *map(str, adapters)],
        "datasets": [{"source": str(rows), "metrics": ["exact_match"]}],
        "evaluation": {"max_new_tokens": NEW_TOKENS, "batch_size": 64},
        "workers": {"num_workers": 2},
    }
    spec.write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = box.raylora("evaluate", str(spec), "--output", "json", timeout_s=EVALUATION_S)
    ended = json.loads(done.expect().stdout.splitlines()[-1])
    found = predictions.read(Path(ended["folder"]) / "predictions/asked.parquet")
    right: dict[str, list[float]] = {}
    for result in found:
        score = result.scores["exact_match"]
        if score is None:
            raise RuntimeError(f"row {result.line} was not asked: {result.unasked}")
        right.setdefault(result.subject, []).append(score)
    return right
