"""The served adapter against PEFT alone: the same tokens in fp32, the same logits within noise.

Two short trainings that differ in their seed give the adapter and, for the negative control, a
wrong one.
"""

import gc
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from benchmarks.bars.bar import Bar, at_least, at_most, holds
from benchmarks.bars.sandbox import Sandbox, sandbox
from raylora.config.compose import load_train
from raylora.config.model_spec import DType, ModelSpec, Quantization
from raylora.config.places import cache
from raylora.engine.generator import Engine, generate
from raylora.engine.prompts import chat_prompt
from raylora.engine.request import Request
from raylora.engine.sampling import Sampling
from raylora.engine.scoring import score
from raylora.jobs.data.rows import read_rows
from raylora.lora.bank.bank import Bank
from raylora.lora.base import load_base, load_tokenizer
from raylora.lora.devices import pick
from raylora.lora.sources import LocalModel, fetch

PROMPTS = 50
NEW_TOKENS = 48
BATCH = 16
FORMATS = {
    "bf16": (DType.BF16, Quantization.NONE),
    "nf4": (DType.BF16, Quantization.NF4),
}

Answered = tuple[list[int], int]
"""Token ids of a prompt with its answer, and how many of them are the answer's."""


@dataclass(frozen=True)
class Case:
    """The prompts, the base on disk, and two adapter directories."""

    local: LocalModel
    model: ModelSpec
    prompts: Sequence[tuple[int, ...]]
    right: Path
    wrong: Path

    def base(self, dtype: DType, quantization: Quantization) -> Any:
        """A fresh base in a number format."""
        spec = self.model.model_copy(update={"dtype": dtype, "quantization": quantization})
        return load_base(self.local, spec, pick())


def measure() -> Iterator[Bar]:
    """Tokens in fp32, then logits in bf16 and nf4."""
    with sandbox() as box:
        right, wrong = _train(box, 0), _train(box, 1)
        box.raylora("cluster", "down").expect()
        spec = load_train("quickstart").spec
        local = fetch(spec.model, cache())
        tokenizer = load_tokenizer(local)
        rows = read_rows(str(spec.data.validation), Path.cwd()).items[:PROMPTS]
        prompts = [
            tuple(chat_prompt(tokenizer, row.conversation(spec.data.system_prompt)[:-1]))
            for row in rows
        ]
        case = Case(local, spec.model, prompts, right, wrong)
        answers = yield from _tokens(case, tokenizer)
        for name, (dtype, quantization) in FORMATS.items():
            yield from _logits(case, name, answers, dtype, quantization)


def _train(box: Sandbox, seed: int) -> Path:
    """Directory of an adapter after 24 steps."""
    done = box.raylora(
        "submit",
        "quickstart",
        f"training.seed={seed}",
        "training.max_steps=24",
        "evaluation.max_rows=8",
        f"name=seed-{seed}",
        "--detach",
        "--output",
        "json",
    ).expect()
    job = json.loads(done.stdout)["job_id"]
    log = box.raylora("jobs", "logs", "-f", "--raw", job, timeout_s=600).expect().stdout
    marker = log.index('{"event": "result"')
    return Path(json.JSONDecoder().raw_decode(log[marker:])[0]["adapter_dir"])


def _tokens(case: Case, tokenizer: Any) -> Iterator[Bar]:
    """Greedy tokens of the engine, adapters and base mixed in each batch, against PEFT's."""
    base = case.base(DType.FP32, Quantization.NONE)
    bank = Bank(base)
    bank.add("right", case.right)
    bank.add("wrong", case.wrong)
    engine = Engine(base, tokenizer, bank, max_batch_size=BATCH)
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=0)
    requests = [
        Request(f"{key}-{i}", prompt, key, sampling)
        for i, prompt in enumerate(case.prompts)
        for key in ("right", "wrong", None)
    ]
    served = {done.id: done.token_ids for done in generate(engine, requests)}
    del base, bank, engine
    gc.collect()

    peft = _peft(case, DType.FP32, Quantization.NONE)
    alone = [_greedy(peft, prompt) for prompt in case.prompts]
    same = sum(served[f"right-{i}"] == tokens for i, tokens in enumerate(alone))
    confused = sum(served[f"wrong-{i}"] == tokens for i, tokens in enumerate(alone))
    yield holds("fp32 greedy tokens = PEFT's", same, len(alone), "prompts")
    yield at_most("  control: wrong adapter tokens", [confused / len(alone)], 0.9, " equal")
    return alone


def _logits(
    case: Case,
    name: str,
    answers: Sequence[tuple[int, ...]],
    dtype: DType,
    quantization: Quantization,
) -> Iterator[Bar]:
    """Teacher-forced logits of the answers' tokens, each row beside the same row of the base.

    The engine is compared with PEFT on the same 16 rows: against another batch size any two
    runs differ by rounding, PEFT from itself too, and that is the target.
    """
    rows = [
        (list(prompt + answer), len(answer))
        for prompt, answer in zip(case.prompts, answers, strict=True)
    ]
    peft = _peft(case, dtype, quantization)
    alone = [_peft_logits(peft, [row], ["default"])[0] for row in rows]
    mixed = [
        logits
        for part in _parts(rows)
        for logits in _peft_logits(peft, _doubled(part), ["default", "__base__"] * len(part))[::2]
    ]
    del peft
    gc.collect()

    base = case.base(dtype, quantization)
    bank = Bank(base)
    bank.add("right", case.right)
    bank.add("wrong", case.wrong)
    served = {
        key: [logits for part in _parts(rows) for logits in _bank_logits(base, bank, part, key)]
        for key in ("right", "wrong")
    }
    noise = _largest(alone, mixed)
    ours = _largest(mixed, served["right"])
    yield at_most(
        f"{name} logits, engine against PEFT",
        [ours],
        noise,
        "",
        f"target: PEFT batch 1 against 16; engine against batch 1: "
        f"{_largest(alone, served['right']):.4g}",
    )
    control = _largest(mixed, served["wrong"])
    yield at_least(f"  control: {name} wrong adapter", [control], 2 * noise)


def _peft(case: Case, dtype: DType, quantization: Quantization) -> Any:
    base = case.base(dtype, quantization)
    peft = PeftModel.from_pretrained(base, case.right, autocast_adapter_dtype=False)
    return peft.eval()


def _greedy(peft: Any, prompt: Sequence[int]) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = peft.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
    return tuple(out[0, len(prompt) :].tolist())


def _parts(rows: list[Answered]) -> Iterator[list[Answered]]:
    """Half batches: each row is joined by its twin of the base."""
    half = BATCH // 2
    for start in range(0, len(rows), half):
        yield rows[start : start + half]


def _doubled(rows: list[Answered]) -> list[Answered]:
    return [row for row in rows for _ in range(2)]


def _peft_logits(peft: Any, rows: list[Answered], names: list[str]) -> list[Tensor]:
    """Logits that predict each row's answer; left-padded as generation is."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([[0] * (longest - len(row)) + row for row, _ in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row, _ in rows])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        logits = peft(
            input_ids=ids, attention_mask=mask, position_ids=positions, adapter_names=names
        ).logits
    return [logits[i, -n - 1 : -1].float() for i, (_, n) in enumerate(rows)]


def _bank_logits(base: Any, bank: Bank, rows: list[Answered], key: str) -> list[Tensor]:
    """The same rows through the engine's bank."""
    mixed = [pair for ids, _ in rows for pair in ((ids, key), (ids, None))]
    logits = score(base, bank, mixed)[::2]
    return [part[-n - 1 : -1].float() for part, (_, n) in zip(logits, rows, strict=True)]


def _largest(reference: list[Tensor], other: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(reference, other, strict=True))
