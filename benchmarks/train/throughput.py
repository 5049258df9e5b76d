"""Useful tokens a second on skewed chat data: ours through Ray Train against TRL and Trainer.

A round is one step of each peer, then one job of ours; a pair is taken within a round. Peers stay
loaded between rounds, but for TRL in fp32: a third as fast as in bf16 and 5 GB large, it is never
the best and takes part in the first round alone. Every peer's first step, on short rows, is not
counted.
"""

import json
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_least, at_most, not_measured, shown
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.peer import stepper
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import Base, smollm2
from benchmarks.train.job import TrainedJob, run_job

ROUNDS = 3
BATCH = 8
STEPS = 8
WARM = 32
"""Tokens of each row of the peers' first step."""
RANK = 16
HF = "HF Trainer fp32"
TRL_FP32 = "TRL fp32"
SETTINGS: dict[str, dict[str, Any]] = {
    HF: {"program": "hf_trainer", "dtype": "fp32", "batch": BATCH},
    "TRL bf16": {"program": "trl_sft", "dtype": "bf16", "batch": BATCH},
    "TRL bf16 bfd": {"program": "trl_sft", "dtype": "bf16", "batch": 1, "pack": 2048},
    TRL_FP32: {"program": "trl_sft", "dtype": "fp32", "batch": BATCH},
}


@dataclass(frozen=True)
class Round:
    """Useful tokens a second of everybody, measured one after the other."""

    ours: TrainedJob
    peers: dict[str, float]

    @property
    def over_trl(self) -> float:
        """Ours over the best variant of TRL."""
        return self.ours.rate / max(rate for name, rate in self.peers.items() if name != HF)

    @property
    def over_hf(self) -> float:
        """Ours over Trainer with PEFT in fp32."""
        return self.ours.rate / self.peers[HF]


def measure() -> Iterator[Bar]:
    """On one thread, on two, then equality of the fp32 loss."""
    base = smollm2()
    with sandbox() as box:
        box.raylora("cluster", "up").expect()
        lengths = [WARM] * BATCH + chat_rows.skewed_lengths(88)
        rows = chat_rows.write(box.folder, "skewed", lengths, base.tokenizer)
        for threads in (1, 2):
            yield from _bars(threads, _rounds(box, base, rows, threads), rows)
        yield from _loss(box, base)
    if not torch.cuda.is_available():
        yield not_measured("throughput on a GPU", "this machine has none")


def _rounds(box: Sandbox, base: Base, rows: ChatRows, threads: int) -> list[Round]:
    """All rounds with so many threads a process."""
    data = {"model": str(base.path), "tokens": str(rows.tokens)}
    rounds: list[Round] = []
    with ExitStack() as stack:
        kept = {
            name: stack.enter_context(stepper(threads=threads, **data, **settings))
            for name, settings in SETTINGS.items()
            if name != TRL_FP32
        }
        for number in range(ROUNDS):
            peers = {name: peer.step().rate for name, peer in kept.items()}
            if number == 0:
                with stepper(threads=threads, **data, **SETTINGS[TRL_FP32]) as peer:
                    peers[TRL_FP32] = peer.step().rate
            rounds.append(Round(_ours(box, rows, threads), peers))
    return rounds


def _ours(box: Sandbox, rows: ChatRows, threads: int) -> TrainedJob:
    return run_job(
        box,
        rows,
        "workers.num_workers=1",
        f"workers.cpus_per_worker={threads}",
        f"training.global_batch_size={BATCH}",
        f"training.micro_batch_size={BATCH}",
        f"training.max_steps={STEPS}",
        f"training.save_steps={STEPS}",
        f"lora.r={RANK}",
    )


def _bars(threads: int, rounds: list[Round], rows: ChatRows) -> Iterator[Bar]:
    on = f"{threads} thread{'s' * (threads > 1)}"
    others = ", ".join(
        f"{name} {statistics.median(r.peers[name] for r in rounds if name in r.peers):.0f}"
        for name in SETTINGS
    )
    rates = [r.ours.rate for r in rounds]
    yield shown(f"useful tokens/s, {on}", rates, "", f"{others}; masked {rows.masked_share:.0%}")
    yield at_least(f"over the best TRL, {on}", [r.over_trl for r in rounds], 2.5, "x")
    yield at_least(f"over HF Trainer fp32, {on}", [r.over_hf for r in rounds], 4.0, "x")
    yield shown(
        f"MFU, {on}",
        [100 * statistics.median(r.ours.each("mfu")) for r in rounds],
        " %",
        "useful operations over what the worker multiplies at its peak, measured in the same run",
    )


def _loss(box: Sandbox, base: Base) -> Iterator[Bar]:
    """The loss of our first two steps against padded HF with the adapter of that moment.

    All rows are one batch. The rate is constant, so a run of one step leaves the adapter that the
    second step of a longer run starts from.
    """
    rows = chat_rows.write(
        box.folder, "loss", chat_rows.skewed_lengths(16, seed=1), base.tokenizer
    )
    one, two = (_fp32(box, rows, steps) for steps in (1, 2))
    wanted = [_padded_loss(base, rows, None), _padded_loss(base, rows, one)]
    found = two.losses
    yield at_most(
        "fp32 loss against padded HF",
        [max(abs(a - b) / b for a, b in zip(found, wanted, strict=True))],
        1e-5,
        "",
        f"relative; {found[0]:.6f} and {found[1]:.6f} of the first two steps",
    )


def _fp32(box: Sandbox, rows: ChatRows, steps: int) -> TrainedJob:
    return run_job(
        box,
        rows,
        "model.dtype=fp32",
        "workers.num_workers=1",
        "workers.cpus_per_worker=2",
        f"training.global_batch_size={len(rows.lengths)}",
        "training.micro_batch_size=8",
        "training.lr_scheduler=constant",
        "training.warmup_ratio=0",
        f"training.max_steps={steps}",
    )


def _padded_loss(base: Base, rows: ChatRows, job: TrainedJob | None) -> float:
    """Mean loss of the rows as one padded batch: transformers and, for a job's adapter, PEFT."""
    model: Any = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32).eval()
    if job is not None:
        model = PeftModel.from_pretrained(model, job.adapter).eval()
    lines = rows.tokens.read_text(encoding="utf-8").splitlines()
    tokenizer = base.tokenizer
    tokenizer.padding_side = "right"
    batch = DataCollatorForSeq2Seq(tokenizer, padding=True)([json.loads(line) for line in lines])
    with torch.inference_mode():
        return float(model(**batch).loss)
