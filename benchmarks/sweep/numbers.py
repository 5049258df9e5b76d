"""Eight fused trials against the same eight alone: losses by step, and the products BA.

What varies without any change of the numbers' meaning is measured beside it: an isolated run on
two threads in place of one and, in bf16, with a row a pass in place of two, and with both. Where a
processor has to emulate bf16, some 30 times slower than fp32, nf4 is measured in fp32, as raylora
trains there.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_most, holds, not_measured
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.smollm2 import smollm2
from benchmarks.sweep.core import Mode, Task, run_tasks
from benchmarks.sweep.differences import largest, products_apart, share_of_spread
from raylora.config.train_spec import TrainSpec
from raylora.lora.devices import pick

RANKS = (2, 64, 8, 32, 4, 48, 16, 24)
RATES = (1e-3, 5e-4, 1e-5, 2e-4, 1e-4, 1e-3, 5e-5, 2e-5)
STEPS = 30
ROWS_A_STEP = 2
ROW = 32
"""Tokens: 64 a trial and step."""
LOSS, PRODUCT = 1e-5, 1e-4
DROPOUT = 0.1

Sections = Mapping[str, Mapping[str, Any]]
"""Of a TrainSpec, or parts of them."""
FP32: dict[str, Any] = {"model": {"dtype": "fp32"}}
BF16: dict[str, Any] = {"model": {"dtype": "bf16"}}
NF4: dict[str, Any] = {"model": {"quantization": "nf4"}}
ONE_ROW_A_PASS = {"training": {"micro_batch_size": 1}}
FEWER_STEPS: dict[str, Any] = {"training": {"max_steps": 10, "save_steps": 10}}


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

    def both(self, name: str, specs: Mapping[str, TrainSpec]) -> tuple[Task, Task]:
        """The same trials fused and alone."""
        fused = self.task(f"{name}-fused", Mode.FUSED, specs)
        return fused, self.task(f"{name}-alone", Mode.ALONE, specs)

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
    """What holds in fp32, then bf16 and nf4."""
    base = smollm2()
    with tempfile.TemporaryDirectory(prefix="rlb-") as folder:
        lengths = [ROW] * ROWS_A_STEP * STEPS
        rows = chat_rows.write(Path(folder), "numbers", lengths, base.tokenizer)
        trials = Trials(rows, Path(folder))
        yield from _in_fp32(trials)
        if pick().has_bf16_units:
            yield from _in_bf16(trials)
            return
        nf4 = trials.both("nf4", trials.specs(NF4 | FEWER_STEPS))
        run_tasks([*nf4], threads=1, processes=2)
        yield _losses_alike("nf4 in fp32", *nf4)
        yield not_measured("bf16", "this processor has no units for it, raylora trains in fp32")


def _in_fp32(trials: Trials) -> Iterator[Bar]:
    """Tasks on one thread, two at a time; then the one that wants both cores."""
    plain, swapped = trials.specs(FP32), trials.specs(FP32, seeds=[2, 1, *range(3, 9)])
    dropped = _first(trials.specs(FP32 | _dropout(DROPOUT)), 3)
    undropped = _first(trials.specs(FP32 | _dropout(0.0)), 3)
    fused, alone = trials.both("fp32", plain)
    with_dropout = trials.both("drop", dropped)
    others = [
        trials.task("swapped", Mode.ALONE, _first(swapped, 2)),
        trials.task("undropped", Mode.ALONE, undropped),
    ]
    threads = trials.task("fp32-threads", Mode.ALONE, plain)
    run_tasks([fused, alone, *with_dropout, *others], threads=1, processes=2)
    run_tasks([threads], threads=2)
    yield _losses_alike("fp32", fused, alone)
    yield _products_alike(fused, alone, threads)
    yield _control(fused, others[0])
    yield from _masks(*with_dropout, others[1])


def _in_bf16(trials: Trials) -> Iterator[Bar]:
    plain, nf4 = trials.specs(BF16), trials.both("nf4", trials.specs(NF4))
    fused, alone = trials.both("bf16", plain)
    in_rows = trials.specs(BF16 | ONE_ROW_A_PASS)
    by_rows = trials.task("bf16-rows", Mode.ALONE, in_rows)
    threads = trials.task("bf16-threads", Mode.ALONE, plain)
    both = trials.task("bf16-rows-threads", Mode.ALONE, in_rows)
    run_tasks([fused, *nf4, alone, by_rows], threads=1, processes=2)
    run_tasks([threads, both], threads=2)
    for name, pair in (("bf16", (fused, alone)), ("nf4", nf4)):
        yield _within(name, *pair, [alone, by_rows, threads, both])


def _losses_alike(name: str, fused: Task, alone: Task) -> Bar:
    losses = {trial: largest(fused.losses(trial), alone.losses(trial)) for trial in fused.specs}
    worst = max(losses, key=losses.__getitem__)
    return at_most(
        f"{name}: fused loss against alone",
        [losses[worst]],
        LOSS,
        "",
        f"relative, the largest of {len(losses)} trials x {len(fused.losses(worst))} steps, "
        f"of {_said(fused, worst)}",
    )


def _products_alike(fused: Task, alone: Task, threads: Task) -> Bar:
    names = list(fused.specs)
    apart = {name: products_apart(fused.weights(name), alone.weights(name)) for name in names}
    spread = max(products_apart(threads.weights(name), alone.weights(name)) for name in names)
    worst = max(apart, key=apart.__getitem__)
    return at_most(
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


def _dropout(share: float) -> dict[str, Any]:
    return {"lora": {"lora_dropout": share}, **FEWER_STEPS}


def _first(specs: Mapping[str, TrainSpec], count: int) -> dict[str, TrainSpec]:
    return dict(list(specs.items())[:count])


def _said(task: Task, trial: str) -> str:
    spec = task.specs[trial]
    return f"r={spec.lora.r} at {spec.training.learning_rate:g}"
