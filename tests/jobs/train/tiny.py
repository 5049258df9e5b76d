"""A tiny training run, in this process or as a program: `python tiny.py '{"rank": 0, ...}'`.

As a program it prints the losses by step and the size of the adapter as its last line, JSON.
"""

import json
import os
import random
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

from raylora.config.training_spec import TrainingSpec
from raylora.config.workers_spec import WorkersSpec
from raylora.jobs.data.batches import Batches
from raylora.jobs.data.encode import Example
from raylora.jobs.train.checkpoint import Checkpoints
from raylora.jobs.train.loop import Setup, train
from raylora.jobs.train.loss import SupervisedLoss
from raylora.jobs.train.observer import StepReport
from raylora.jobs.train.sharding import ShardedModel, deepspeed_config

VOCABULARY = 128


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).requires_grad_(False).eval()


def with_lora(model: LlamaForCausalLM, dropout: float = 0.0) -> PeftModel:
    torch.manual_seed(1)
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear")
    return get_peft_model(model, lora, autocast_adapter_dtype=False)


def examples(count: int = 24) -> list[Example]:
    draw = random.Random(0)
    made: list[Example] = []
    for _ in range(count):
        ids = [draw.randrange(VOCABULARY) for _ in range(draw.randrange(8, 24))]
        prompt = draw.randrange(2, len(ids) - 2)
        made.append(Example(ids, [-100] * prompt + ids[prompt:]))
    return made


@dataclass
class Recorder:
    """An observer that keeps what it is told, and can fail after a step like a killed worker."""

    fail_after: int | None = None
    resumed_at: int | None = None
    reports: list[StepReport] = field(default_factory=list[StepReport])
    saves: list[int] = field(default_factory=list[int])

    def resumed(self, step: int) -> None:
        self.resumed_at = step

    def stepped(self, report: StepReport) -> None:
        self.reports.append(report)
        if report.step == self.fail_after:
            raise KeyboardInterrupt

    def saved(self, step: int, checkpoint: Path) -> None:
        self.saves.append(step)

    @property
    def losses(self) -> list[float]:
        return [report.loss for report in self.reports]


@dataclass(frozen=True)
class TinyRun:
    """A run with these settings; `directory` holds its checkpoints."""

    directory: str
    rank: int = 0
    world: int = 1
    zero_stage: int = 2
    bf16: bool = False
    dropout: float = 0.0
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    rows: int = 24

    def start(self, recorder: Recorder) -> PeftModel:
        """Train to the end, from the newest checkpoint on; the trained model."""
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        base: Any = llama()
        model = with_lora(base.to(dtype), self.dropout)
        # PEFT trains its dropout only in train mode; the rest of the tiny model has none.
        model.train()
        settings = {"max_steps": 8, "global_batch_size": 4, "micro_batch_size": 1}
        training = TrainingSpec.model_validate(
            {**settings, "learning_rate": 1e-2, "save_steps": 3, **self.training}
        )
        workers = WorkersSpec(num_workers=self.world, zero_stage=self.zero_stage)
        causal: Any = model.get_base_model()
        sharded = ShardedModel(
            SupervisedLoss(model, causal),
            deepspeed_config(training, workers, dtype),
            cpu_comm_op=workers.cpu_comm_op,
        )
        batches = Batches(examples(self.rows), training, self.rank, self.world)
        checkpoints = Checkpoints(Path(self.directory), training.keep_checkpoints)
        train(Setup(sharded, batches, training), recorder, checkpoints)
        return model


def adapter_of(model: PeftModel) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def size_of(model: PeftModel) -> float:
    """One number that two equal adapters share."""
    return sum(float(tensor.double().abs().sum()) for tensor in adapter_of(model).values())


def main() -> None:
    settings = json.loads(sys.argv[1])
    run, port = TinyRun(**settings["run"]), settings["port"]
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(run.rank),
        LOCAL_RANK=str(run.rank),
        WORLD_SIZE=str(run.world),
    )
    dist.init_process_group("gloo")
    recorder = Recorder()
    model = run.start(recorder)
    printed = {"losses": recorder.losses, "size": size_of(model), **asdict(run)}
    sys.stdout.write(json.dumps(printed) + "\n")


if __name__ == "__main__":
    main()
