"""BANKING77 as a task: ours and a peer trained on the same rows with the same budget, compared.

The answer must be the intent's name and nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.bars import chat_rows, peer
from benchmarks.bars.bar import Bar, Verdict, at_least
from benchmarks.bars.bench_data import Question
from benchmarks.bars.sandbox import Sandbox
from benchmarks.bars.smollm2 import Base
from benchmarks.train.job import run_job
from raylora.tracking.bootstrap import paired_bootstrap

BATCH = 8
RATE = 1e-3
SYSTEM = "Name the intent of the customer's message."
NEW_TOKENS = 20
"""The longest intent has 17."""
WORST = -1.0
"""Points of accuracy."""


def train_ours(box: Sandbox, questions: Sequence[Question], steps: int, dtype: str) -> Path:
    """The folder of an adapter that `raylora submit` trained."""
    rows = box.folder / "banking.jsonl"
    chat_rows.write_lines(rows, [{"messages": messages(question)} for question in questions])
    return run_job(
        box,
        rows,
        f"model.dtype={dtype}",
        f"training.global_batch_size={BATCH}",
        f"training.micro_batch_size={BATCH}",
        f"training.learning_rate={RATE}",
        f"training.max_steps={steps}",
        f"training.save_steps={steps}",
    ).adapter


def train_peer(
    program: str, folder: Path, base: Base, questions: Sequence[Question], steps: int, dtype: str
) -> Path:
    """The folder of an adapter that a peer's program trained."""
    rows, saved = folder / "banking.tokens.jsonl", folder / program
    encoded = [chat_rows.encode(messages(q), base.tokenizer) for q in questions]
    chat_rows.write_lines(rows, encoded)
    peer.run(
        program,
        threads=2,
        steps=steps,
        model=str(base.path),
        tokens=str(rows),
        dtype=dtype,
        batch=BATCH,
        order="random",
        learning_rate=RATE,
        save=str(saved),
    )
    return saved


def compared(
    name: str, ours: Sequence[float], theirs: Sequence[float], detail: str
) -> Iterator[Bar]:
    """Whether ours answers as well: 1 for each question that is answered right, else 0."""
    apart = paired_bootstrap(ours, theirs)
    low, high = 100 * apart.low, 100 * apart.high
    bar = at_least(name, [100 * apart.mean], WORST, "", f"points; paired bootstrap; {detail}")
    near = bar.verdict is Verdict.SHORT and high >= WORST
    yield replace(bar, spread=f"{low:.2f}..{high:.2f}", near=near)
    yield at_least("  upper end of its 95 % interval", [high], 0, "")


def messages(question: Question) -> list[dict[str, str]]:
    """A question with its answer, as a conversation."""
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question.text},
        {"role": "assistant", "content": question.intent},
    ]
