"""What does not go together in a TrainSpec, and why: the one table of it.

The spec's validator refuses by it, `raylora plan` shows what it holds for a spec, and the table in
docs/compatibility.md is made from it.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raylora.config.data_spec import Ingest, Order, Packing
from raylora.config.dotted import get
from raylora.config.lora_spec import DECOMPOSING, Init
from raylora.config.model_spec import FOUR_BIT, Quantization
from raylora.config.training_spec import Optimizer
from raylora.config.workers_spec import Backend

if TYPE_CHECKING:
    from raylora.config.train_spec import TrainSpec


@dataclass(frozen=True)
class Rule:
    """One combination that is refused."""

    name: str
    broken: Callable[["TrainSpec"], bool]
    reason: str
    """Names every key involved in full, the one at fault first."""
    remedy: str

    def found(self, spec: "TrainSpec") -> str:
        """The values of the keys that the reason names, such as data.max_length=512."""
        values = spec.model_dump(mode="json")
        keys = dict.fromkeys(re.findall(r"[a-z]+\.[a-z_0-9]+", self.reason))
        return ", ".join(f"{key}={json.dumps(get(values, key))}" for key in keys)


RULES: tuple[Rule, ...] = (
    Rule(
        "rows longer than the context",
        lambda s: s.data.max_length > s.model.max_length,
        "data.max_length is longer than model.max_length",
        "lower the first or raise the second",
    ),
    Rule(
        "packs shorter than rows",
        lambda s: s.data.pack_length is not None and s.data.pack_length < s.data.max_length,
        "data.pack_length is shorter than data.max_length, so that a row may not fit",
        "raise the first or lower the second",
    ),
    Rule(
        "batch smaller than the workers",
        lambda s: s.training.global_batch_size < s.workers.most,
        "training.global_batch_size is smaller than workers.num_workers: some would have no row",
        "raise the first or lower the second",
    ),
    Rule(
        "streaming without an end",
        lambda s: s.data.ingest is Ingest.STREAMING and s.training.max_steps is None,
        "data.ingest=streaming does not know how many rows come, and training.max_steps is null",
        "set training.max_steps",
    ),
    Rule(
        "streaming cannot look ahead",
        lambda s: (
            s.data.ingest is Ingest.STREAMING
            and (s.data.packing is not Packing.NONE or s.data.order is not Order.SHUFFLED)
        ),
        "data.ingest=streaming sees few rows at a time, too few for data.packing=best_fit or "
        "data.order=length_grouped",
        "write data.ingest=local, or data.packing=none and data.order=shuffled",
    ),
    Rule(
        "streaming cannot hold out",
        lambda s: s.data.ingest is Ingest.STREAMING and s.data.validation_ratio > 0,
        "data.ingest=streaming cannot hold out a share of rows it has not seen "
        "(data.validation_ratio)",
        "name held-out rows in data.validation",
    ),
    Rule(
        "DoRA starts plain",
        lambda s: s.lora.use_dora and s.lora.init_lora_weights in (*DECOMPOSING, Init.LOFTQ),
        "lora.use_dora measures magnitudes on the base as it is, and lora.init_lora_weights "
        "changes it",
        "write lora.init_lora_weights=default or lora.use_dora=false",
    ),
    Rule(
        "decomposition of a quantised base",
        lambda s: (
            s.lora.init_lora_weights in DECOMPOSING
            and s.model.quantization is not Quantization.NONE
        ),
        "lora.init_lora_weights decomposes weights in full precision, and model.quantization "
        "stores them in few bits",
        "write model.quantization=none, or lora.init_lora_weights=loftq",
    ),
    Rule(
        "LoftQ without quantisation",
        lambda s: s.lora.init_lora_weights is Init.LOFTQ and s.model.quantization not in FOUR_BIT,
        "lora.init_lora_weights=loftq makes up for the error of 4-bit weights, and "
        "model.quantization has none",
        "write model.quantization=nf4, or lora.init_lora_weights=default",
    ),
    Rule(
        "double quantisation of nothing",
        lambda s: s.model.double_quant and s.model.quantization not in FOUR_BIT,
        "model.double_quant packs the scales of 4-bit weights, and model.quantization has none",
        "write model.quantization=nf4 or model.double_quant=false",
    ),
    Rule(
        "ZeRO 3 over quantised weights",
        lambda s: (
            s.workers.uses_deepspeed
            and s.workers.zero_stage == 3
            and s.model.quantization is not Quantization.NONE
        ),
        "workers.zero_stage=3 splits weights over the workers, and packed ones "
        "(model.quantization) cannot be split",
        "write workers.zero_stage=2 or model.quantization=none",
    ),
    Rule(
        "ZeRO 3 with DoRA",
        lambda s: s.workers.uses_deepspeed and s.workers.zero_stage == 3 and s.lora.use_dora,
        "workers.zero_stage=3 gathers a weight while its layer runs, and lora.use_dora reads it "
        "outside of that",
        "write workers.zero_stage=2 or lora.use_dora=false",
    ),
    Rule(
        "offload of nothing",
        lambda s: s.workers.offload and s.workers.zero_stage == 0,
        "workers.offload moves what ZeRO shards, and workers.zero_stage=0 shards nothing",
        "write workers.zero_stage=2 or workers.offload=false",
    ),
    Rule(
        "sharding without DeepSpeed",
        lambda s: (
            s.workers.backend is Backend.TORCH and (s.workers.offload or s.workers.zero_stage == 3)
        ),
        "workers.backend=torch keeps everything in each worker, unlike workers.offload and "
        "workers.zero_stage=3",
        "write workers.backend=deepspeed",
    ),
    Rule(
        "8-bit and paged optimizers without a GPU",
        lambda s: s.training.optimizer is not Optimizer.ADAMW and s.workers.gpus_per_worker == 0,
        "training.optimizer needs a GPU, and workers.gpus_per_worker is 0",
        "write training.optimizer=adamw",
    ),
    Rule(
        "8-bit and paged optimizers under DeepSpeed",
        lambda s: s.training.optimizer is not Optimizer.ADAMW and s.workers.uses_deepspeed,
        "training.optimizer keeps its moments its own way, and DeepSpeed (workers.backend, "
        "workers.zero_stage) shards those of adamw",
        "write workers.backend=torch, or training.optimizer=adamw",
    ),
    Rule(
        "validation between checkpoints",
        lambda s: (
            s.training.validation_steps is not None
            and s.training.validation_steps % s.training.save_steps != 0
        ),
        "training.validation_steps is no multiple of training.save_steps, and the best step "
        "must have a checkpoint",
        "make it a multiple",
    ),
    Rule(
        "validation without held-out rows",
        lambda s: s.training.validation_steps is not None and not s.data.holds_out,
        "training.validation_steps is set, and data.validation, data.validation_split and "
        "data.validation_ratio name no held-out rows",
        "set one of them, or training.validation_steps: null",
    ),
    Rule(
        "early stopping without validation",
        lambda s: (
            s.training.early_stopping_patience is not None and s.training.validation_steps is None
        ),
        "training.early_stopping_patience counts validations, and training.validation_steps is "
        "null",
        "set training.validation_steps",
    ),
    Rule(
        "answers without validation",
        lambda s: s.training.validation_answers > 0 and s.training.validation_steps is None,
        "training.validation_answers belongs to a validation, and training.validation_steps is "
        "null",
        "set training.validation_steps, or training.validation_answers: 0",
    ),
)


def broken(spec: "TrainSpec") -> list[Rule]:
    """The rules that a spec breaks, in the table's order."""
    return [rule for rule in RULES if rule.broken(spec)]
