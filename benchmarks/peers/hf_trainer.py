"""transformers' Trainer with PEFT: rows padded to the longest of the batch, as its users have it.

    python -m benchmarks.peers.hf_trainer '{"model": DIR, "tokens": FILE, "dtype": "fp32", ...}'

Under torchrun it is their DDP. FILE has one {"input_ids": [...], "labels": [...]} a line. With
"save": DIR the adapter is saved there.
"""

import json
import sys
from pathlib import Path

from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

from benchmarks.peers.steps import Counting, OneByOne, common, dtype, say, seed


def main() -> None:
    """Train, one JSON line a step."""
    settings = json.loads(sys.argv[1])
    seed(settings)
    lines = Path(settings["tokens"]).read_text(encoding="utf-8").splitlines()
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=dtype(settings["dtype"]))
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    tokenizer = AutoTokenizer.from_pretrained(settings["model"], padding_side="right")
    batches = Counting(DataCollatorForSeq2Seq(tokenizer, padding=True))
    trainer = Trainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(**common(settings)),
        train_dataset=[json.loads(line) for line in lines],  # type: ignore[arg-type]
        data_collator=batches,
        callbacks=[OneByOne(batches, waits=settings["waits"])],
    )
    trainer.train()
    if "save" in settings:
        # Not save_model: that adds a pickle, with which no adapter is loaded.
        trainer.model.save_pretrained(settings["save"])
        say(saved=settings["save"])


if __name__ == "__main__":
    main()
