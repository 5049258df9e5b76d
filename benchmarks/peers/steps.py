"""A trainer that takes each step when it is told to, and says how long the step took."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

Row = dict[str, Any]


class Counting:
    """A collator that notes how many tokens of the data, without padding, each batch holds."""

    def __init__(self, collate: Callable[[list[Row]], dict[str, Any]]) -> None:
        self.tokens: list[int] = []
        self._collate = collate

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Collate, and count."""
        self.tokens.append(sum(len(row["input_ids"]) for row in rows))
        return self._collate([dict(row) for row in rows])


class OneByOne(TrainerCallback):
    """Prints a JSON line a step; where it `waits`, each step first takes a line from stdin."""

    def __init__(self, batches: Counting, *, waits: bool) -> None:
        self._batches = batches
        self._waits = waits
        self._steps = 0
        self._started = time.perf_counter()

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """Start the clock, when told to."""
        if self._waits:
            if not sys.stdin.readline():
                sys.exit(0)  # nobody wants another step
            self._started = time.perf_counter()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """Say what the step took."""
        now = time.perf_counter()
        # One batch a step: the trainer collates a batch ahead, so the list may be longer.
        tokens = self._batches.tokens[self._steps]
        self._steps += 1
        say(step=self._steps, seconds=now - self._started, tokens=tokens)
        self._started = time.perf_counter()


def say(**facts: Any) -> None:
    """One JSON line of this process, with its rank and its threads."""
    line = {"rank": int(os.environ.get("RANK", "0")), "threads": torch.get_num_threads(), **facts}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def dtype(name: str) -> torch.dtype | str:
    """What `from_pretrained` is given: auto is its own default."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "auto": "auto"}[name]


def seed(settings: dict[str, Any]) -> None:
    """Before the adapter is made: Trainer seeds only after that, so no two runs would be alike."""
    set_seed(settings.get("seed", 0))


def common(settings: dict[str, Any]) -> dict[str, Any]:
    """Training arguments that all peers share: nothing but training takes time."""
    return {
        "output_dir": settings["folder"],
        "use_cpu": True,
        "per_device_train_batch_size": settings["batch"],
        "max_steps": settings["steps"],
        "learning_rate": settings.get("learning_rate", 1e-3),
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.05,  # a share of all steps
        "seed": settings.get("seed", 0),
        "train_sampling_strategy": settings.get("order", "sequential"),
        "gradient_checkpointing": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        # Given outside of torchrun it is taken for a wish to run under it.
        **({"ddp_backend": "gloo"} if "RANK" in os.environ else {}),
    }
