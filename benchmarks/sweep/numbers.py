"""Eight fused trials against the same eight alone: losses by step, and the products BA.

What varies without any change of the numbers' meaning is measured beside it: an isolated run on
two threads in place of one and, in bf16, with a row a pass in place of two.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_most, holds
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.smollm2 import smollm2
from benchmarks.sweep.core import Mode, Task, run_tasks
from raylora.config.train_spec import TrainSpec

RANKS = (2, 64, 8, 32, 4, 48, 16, 24)
RATES = (1e-3, 5e-4, 1e-5, 2e-4, 1e-4, 1e-3, 5e-5, 2e-5)
STEPS = 30
ROWS_A_STEP = 2
ROW = 32
"""Tokens: 64 a trial and step."""
LOSS, PRODUCT = 1e-5, 1e-4
DROPOUT = 0.1
DROPPED_STEPS = 10

Sections = Mapping[str, Mapping[str, Any]]
"""Of a TrainSpec, or parts of them."""
FP32: dict[str, Any] = {"model": {"dtype": "fp32"}}
BF16: dict[str, Any] = {"model": {"dtype": "bf16"}}
NF4: dict[str, Any] = {"model": {"dtype": "bf16", "quantization": "nf4"}}
ONE_ROW_A_PASS = {"training": {"micro_batch_size": 1}}


@dataclass(frozen=True)
class Trials:
    """Makes the specs and tasks of this measurement."""

    rows: ChatRows
    folder: Path

    def specs(self, changed: Sections, seeds: Sequence[int] | None = None) -> dict[str, TrainSpec]:
        """All eight, but for what is `changed`."""
        numbers = range(1, len(RANKS) + 1)
        return {
            f"t{number:02}": self._spec(rank, rate, seed, changed)
            for number, rank, rate, seed in zip(
                numbers, RANKS, RATES, seeds or numbers, strict=True
            )
        }

    def task(self, name: str, mode: Mode, specs: Mapping[str, TrainSpec]) -> Task:
        """With a folder of its own."""
        return Task(name, mode, specs, self.folder / name)

    def _spec(self, rank: int, rate: float, seed: int, changed: Sections) -> TrainSpec:
        sections: dict[str, dict[str, Any]] = {
            "data": {"train": str(self.rows.messages), "validation": None},
            "lora": {"r": rank, "lora_alpha": 2 * rank},
            "training": {
                "learning_rate": rate,
                "seed": seed,
                "max_steps": STEPS,
                "save_steps": STEPS,
                "global_batch_size": ROWS_A_STEP,
                "micro_batch_size": ROWS_A_STEP,
            },
            "workers": {"num_workers": 1},
            "tracking": {"system_metrics": False},
        }
        for section, values in changed.items():
            sections[section] = {**sections.get(section, {}), **values}
        return TrainSpec.model_validate(sections)


def measure() -> Iterator[Bar]:
    """Tasks on one thread, two at a time; then those that want both cores."""
    base = smollm2()
    with tempfile.TemporaryDirectory(prefix="rlb-") as folder:
        lengths = [ROW] * ROWS_A_STEP * STEPS
        rows = chat_rows.write(Path(folder), "numbers", lengths, base.tokenizer)
        trials = Trials(rows, Path(folder))
        fp32, bf16, nf4 = (trials.specs(kind) for kind in (FP32, BF16, NF4))
        swapped = trials.specs(FP32, seeds=[2, 1, *range(3, len(RANKS) + 1)])
        dropped = _first(trials.specs(FP32 | _dropout(DROPOUT)), 3)
        fused = {
            name: trials.task(f"{name}-fused", Mode.FUSED, specs)
            for name, specs in (("fp32", fp32), ("bf16", bf16), ("nf4", nf4), ("drop", dropped))
        }
        alone = {
            name: trials.task(f"{name}-alone", Mode.ALONE, specs)
            for name, specs in (
                ("fp32", fp32),
                ("nf4", nf4),
                ("bf16", bf16),
                ("bf16-rows", trials.specs(BF16 | ONE_ROW_A_PASS)),
                ("swapped", _first(swapped, 2)),
                ("drop", dropped),
                ("undropped", _first(trials.specs(FP32 | _dropout(0.0)), 3)),
            )
        }
        threads = {
            name: trials.task(f"{name}-threads", Mode.ALONE, specs)
            for name, specs in (("fp32", fp32), ("bf16", bf16))
        }
        run_tasks([*fused.values(), *alone.values()], threads=1, processes=2)
        run_tasks([*threads.values()], threads=2)
        yield from _exact(fused["fp32"], alone["fp32"], threads["fp32"])
        yield _control(fused["fp32"], alone["swapped"])
        yield from _masks(fused["drop"], alone["drop"], alone["undropped"])
        isolated = [alone["bf16"], alone["bf16-rows"], threads["bf16"]]
        yield _within("bf16", fused["bf16"], alone["bf16"], isolated)
        yield _within("nf4", fused["nf4"], alone["nf4"], isolated)


def _exact(fused: Task, alone: Task, threads: Task) -> Iterator[Bar]:
    names = list(fused.specs)
    losses = {name: largest(fused.losses(name), alone.losses(name)) for name in names}
    worst = max(losses, key=losses.__getitem__)
    yield at_most(
        "fp32: fused loss against alone",
        [losses[worst]],
        LOSS,
        "",
        f"relative, the largest of {len(names)} trials x {STEPS} steps, of {_said(fused, worst)}",
    )
    apart = {name: products_apart(fused.weights(name), alone.weights(name)) for name in names}
    spread = max(products_apart(threads.weights(name), alone.weights(name)) for name in names)
    worst = max(apart, key=apart.__getitem__)
    yield at_most(
        "fp32: fused BA against alone",
        [apart[worst]],
        max(PRODUCT, spread),
        "",
        f"relative Frobenius norm, the largest, of {_said(fused, worst)}; 1 and 2 threads alone "
        f"are {spread:.2g} apart",
    )


def _control(fused: Task, swapped: Task) -> Bar:
    """The trials that had each other's seeds must be told apart."""
    apart = [largest(fused.losses(name), swapped.losses(name)) for name in swapped.specs]
    return holds(
        "swapped seeds are noticed",
        sum(difference > LOSS for difference in apart),
        len(apart),
        f"beyond {LOSS:g}",
        f"relative difference of losses {min(apart):.2g} and more",
    )


def _masks(fused: Task, alone: Task, undropped: Task) -> Iterator[Bar]:
    names = list(alone.specs)
    yield at_most(
        "dropout: fused loss against alone",
        [max(largest(fused.losses(name), alone.losses(name)) for name in names)],
        LOSS,
        "",
        f"relative, the largest of {len(names)} trials of different seed, dropout {DROPOUT:g}",
    )
    apart = [largest(fused.losses(name), undropped.losses(name)) for name in names]
    yield holds(
        "dropout is noticed",
        sum(difference > LOSS for difference in apart),
        len(apart),
        f"beyond {LOSS:g}",
        f"against none: {min(apart):.2g} and more",
    )


def _within(name: str, fused: Task, alone: Task, isolated: Sequence[Task]) -> Bar:
    """By trial: how far fused is from alone, over how far isolated runs are from each other."""
    shares = [
        share_of_spread(
            fused.losses(trial),
            alone.losses(trial),
            [run.losses(trial) for run in isolated],
        )
        for trial in fused.specs
    ]
    return at_most(
        f"{name}: fused over run-to-run spread",
        shares,
        1.0,
        "x",
        "loss of all steps, root mean square; the spread is that of isolated bf16 on 1 and 2 "
        "threads, and with 1 and 2 rows a pass",
    )


def largest(one: Sequence[float], other: Sequence[float]) -> float:
    """Relative difference of the step in which two runs differ most."""
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def share_of_spread(
    one: Sequence[float], other: Sequence[float], runs: Sequence[Sequence[float]]
) -> float:
    """How far two runs are apart, over the largest distance between any two of `runs`."""
    apart = _typical(one, other)
    spread = max(_typical(a, b) for a, b in combinations(runs, 2))
    if spread == 0.0:
        return 0.0 if apart == 0.0 else math.inf
    return apart / spread


def products_apart(one: Path, other: Path) -> float:
    """Frobenius norm of the difference of two adapters' products BA, relative to the second's."""
    a, b = load_file(one), load_file(other)
    if a.keys() != b.keys():
        raise RuntimeError(f"{one} and {other} hold different tensors")
    apart = whole = 0.0
    for key in a:
        if ".lora_A." not in key:
            continue
        b_key = key.replace(".lora_A.", ".lora_B.")
        product = b[b_key].double() @ b[key].double()
        apart += float((a[b_key].double() @ a[key].double() - product).square().sum())
        whole += float(product.square().sum())
    return math.sqrt(apart / whole)


def _typical(one: Sequence[float], other: Sequence[float]) -> float:
    squares = [((a - b) / b) ** 2 for a, b in zip(one, other, strict=True)]
    return math.sqrt(sum(squares) / len(squares))


def _dropout(share: float) -> dict[str, Any]:
    return {
        "lora": {"lora_dropout": share},
        "training": {"max_steps": DROPPED_STEPS, "save_steps": DROPPED_STEPS},
    }


def _first(specs: Mapping[str, TrainSpec], count: int) -> dict[str, TrainSpec]:
    return dict(list(specs.items())[:count])


def _said(task: Task, trial: str) -> str:
    spec = task.specs[trial]
    return f"r={spec.lora.r} at {spec.training.learning_rate:g}"
