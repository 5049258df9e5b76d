"""TRL's SFTTrainer with PEFT, padded or packed, on rows of token ids or on conversations.

    python -m benchmarks.peers.trl_sft '{"model": DIR, "tokens": FILE, "dtype": "bf16", ...}'

FILE has one {"input_ids": [...], "labels": [...]} a line, all of them the same rows as ours. With
"pack": N rows are packed into N tokens by best fit decreasing. With "save": DIR the adapter is
written at the end.
"""

import json
import sys
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.peers.steps import Counting, OneByOne, common, dtype, say, seed


def main() -> None:
    """Train, one JSON line a step."""
    settings = json.loads(sys.argv[1])
    seed(settings)
    lines = Path(settings["tokens"]).read_text(encoding="utf-8").splitlines()
    pack = settings.get("pack")
    arguments = SFTConfig(
        **common(settings),
        bf16=settings["dtype"] == "bf16",
        packing=pack is not None,
        packing_strategy="bfd",
        max_length=pack or 2048,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            settings["model"], dtype=dtype(settings["dtype"])
        ),
        args=arguments,
        train_dataset=Dataset.from_list([json.loads(line) for line in lines]),
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        peft_config=LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    batches = Counting(trainer.data_collator)
    trainer.data_collator = batches
    trainer.add_callback(OneByOne(batches, waits=settings["waits"]))
    trainer.train()
    if "save" in settings:
        # Not save_model: that adds a pickle, with which no adapter is loaded.
        trainer.model.save_pretrained(settings["save"])
        say(saved=settings["save"])


if __name__ == "__main__":
    main()
