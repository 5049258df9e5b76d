"""A tiny training run, in this process or as a program: `python tiny.py '{"runs": [...], ...}'`.

As a program it makes several and prints, as its last line, the losses by step and the size of the
adapter of each as JSON.
"""

import json
import os
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

from raylora.config.data_spec import DataSpec
from raylora.config.training_spec import TrainingSpec
from raylora.config.workers_spec import WorkersSpec
from raylora.jobs.data.batches import Batches
from raylora.jobs.data.examples import Example, ListedExamples
from raylora.jobs.train import deepspeed_engine
from raylora.jobs.train.backend import TrainingBackend, make_backend
from raylora.jobs.train.checkpoint import Checkpoints
from raylora.jobs.train.loop import Setup, train
from raylora.jobs.train.loss import SupervisedLoss
from raylora.jobs.train.neftune import noise_on
from raylora.jobs.train.observer import StepReport
from raylora.jobs.train.outcome import Outcome
from raylora.jobs.train.parameter_groups import ParameterGroup
from raylora.jobs.train.passes import OwnPasses
from raylora.jobs.train.prepare import prepare
from raylora.jobs.train.utilisation import cost_of
from raylora.jobs.train.validation import HeldOut, NoValidation, Validation, Validator

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


def examples(count: int = 24, seed: int = 0) -> list[Example]:
    draw = random.Random(seed)
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
    validations: list[Validation] = field(default_factory=list[Validation])
    warnings: list[str] = field(default_factory=list[str])
    micro_batch_sizes: list[int] = field(default_factory=list[int])

    def resumed(self, step: int) -> None:
        self.resumed_at = step

    def stepped(self, report: StepReport) -> None:
        self.reports.append(report)
        if report.step == self.fail_after:
            raise KeyboardInterrupt

    def validated(self, validation: Validation, best: bool) -> None:
        self.validations.append(validation)

    def warned(self, text: str) -> None:
        self.warnings.append(text)

    def backed_off(self, micro_batch_size: int) -> None:
        self.micro_batch_sizes.append(micro_batch_size)

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
    workers: dict[str, Any] = field(default_factory=dict[str, Any])
    dtype: str = "float32"
    dropout: float = 0.0
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    rows: int = 24
    held_out: int = 0
    lr_scale_of_b: float = 1.0
    room: tuple[int, int] | None = None
    """A rank, and how many rows fit into its memory in a forward pass."""

    @property
    def spec(self) -> TrainingSpec:
        settings = {"max_steps": 8, "global_batch_size": 4, "micro_batch_size": 1}
        return TrainingSpec.model_validate(
            {**settings, "learning_rate": 1e-2, "save_steps": 3, **self.training}
        )

    def start(self, recorder: Recorder) -> PeftModel:
        """Train to the end, from the newest checkpoint on; the trained model."""
        return self.train(recorder)[0]

    def train(self, recorder: Recorder) -> tuple[PeftModel, Outcome, TrainingBackend]:
        """Train to the end, from the newest checkpoint on."""
        spec, model = self.spec, self.model()
        base: Any = model.get_base_model()
        cost = cost_of(base)
        backend = self.backend(model)
        setup = Setup(
            backend,
            Batches(ListedExamples(examples(self.rows)), DataSpec(), spec, self.rank, self.world),
            spec,
            self.validator(),
            noise_on(base, spec.neftune_noise_alpha),
            cost,
            1e12,
            spec.micro_batch_size,
        )
        checkpoints = Checkpoints(Path(self.directory), spec.keep_checkpoints)
        return model, train(setup, recorder, checkpoints), backend

    def model(self) -> PeftModel:
        base: Any = llama()
        model = with_lora(base.to(getattr(torch, self.dtype)), self.dropout)
        causal: Any = model.get_base_model()
        if self.spec.activation_checkpointing:
            causal.activation_checkpointing_enable({"use_reentrant": False})
        return model

    def backend(self, model: PeftModel) -> TrainingBackend:
        deepspeed_engine.KEPT_WHOLE = 40  # or stage 3 would split nothing of a tiny model
        causal: Any = model.get_base_model()
        workers = WorkersSpec.model_validate({"num_workers": self.world, **self.workers})
        route = prepare(model, causal, split_weights=self.workers.get("zero_stage") == 3)
        module = SupervisedLoss(model, causal)
        if self.room is not None and self.room[0] == self.rank:
            module.register_forward_pre_hook(self._run_out, with_kwargs=True)
        dtype = getattr(torch, self.dtype)
        passes = OwnPasses(module, route)
        return make_backend(module, passes, self.groups(model), self.spec, workers, dtype)[0]

    def groups(self, model: PeftModel) -> list[ParameterGroup]:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        decay = self.spec.weight_decay
        if self.lr_scale_of_b == 1.0:
            whole = [p for _, p in trained]
            return [ParameterGroup(params=whole, lr_scale=1.0, weight_decay=decay)]
        parts = [("lora_A", 1.0), ("lora_B", self.lr_scale_of_b)]
        return [
            ParameterGroup(
                params=[p for name, p in trained if part in name],
                lr_scale=scale,
                weight_decay=decay,
            )
            for part, scale in parts
        ]

    def _run_out(self, module: Any, args: Any, inputs: dict[str, torch.Tensor]) -> None:
        assert self.room is not None
        if len(inputs["lengths"]) > self.room[1]:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")

    def validator(self) -> Validator:
        if not self.held_out:
            return NoValidation()
        rows = ListedExamples(examples(self.held_out, seed=1))
        return HeldOut(rows, self.spec, self.rank, self.world)


def adapter_of(model: PeftModel) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def size_of(state: Mapping[str, torch.Tensor]) -> float:
    """One number that the states of two equal runs share."""
    weights = [tensor for name, tensor in state.items() if name.startswith("weight/")]
    return sum(float(tensor.double().abs().sum()) for tensor in weights)


def main() -> None:
    settings = json.loads(sys.argv[1])
    rank, world = settings["rank"], settings["world"]
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(settings["port"]),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
    )
    dist.init_process_group("gloo")
    printed = [made(TinyRun(rank=rank, world=world, **run)) for run in settings["runs"]]
    sys.stdout.write(json.dumps(printed) + "\n")


def made(run: TinyRun) -> dict[str, Any]:
    recorder = Recorder()
    model, _, backend = run.train(recorder)
    state = backend.gather_state()
    return {
        "losses": recorder.losses,
        "validations": [validation.loss for validation in recorder.validations],
        "held": sum(getattr(p, "ds_tensor", p).numel() for p in model.parameters()),
        "size": size_of(state) if state is not None else None,
        "micro_batch_sizes": recorder.micro_batch_sizes,
        "memory": recorder.reports[-1].worker_memory_bytes,
    }


if __name__ == "__main__":
    main()
