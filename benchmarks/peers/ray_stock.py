"""The stock way to fine-tune on Ray: a TorchTrainer whose workers load the model and train.

    ray job submit --working-dir FOLDER -- python ray_stock.py settings.json

As in Ray's guide for transformers, with PEFT. Alone in its folder, so it knows no other module.
"""

import json
import sys
from pathlib import Path
from typing import Any

from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

FIRST_STEP = '{"event": "first step"}'


def train(settings: dict[str, Any]) -> None:
    """What each worker does."""
    from peft import LoraConfig, get_peft_model
    from ray.train.huggingface.transformers import RayTrainReportCallback, prepare_trainer
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class FirstStep(TrainerCallback):
        def on_step_end(self, *given: object, **named: object) -> None:
            sys.stdout.write(FIRST_STEP + "\n")
            sys.stdout.flush()

    lines = Path(settings["tokens"]).read_text(encoding="utf-8").splitlines()
    model = AutoModelForCausalLM.from_pretrained(settings["model"])
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = Trainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(
            output_dir="trained",
            use_cpu=True,
            per_device_train_batch_size=settings["batch"],
            max_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=[json.loads(line) for line in lines],  # type: ignore[arg-type]
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        callbacks=[FirstStep(), RayTrainReportCallback()],
    )
    prepare_trainer(trainer).train()


def main() -> None:
    """Run on the workers."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    TorchTrainer(
        train,
        train_loop_config=settings,
        scaling_config=ScalingConfig(num_workers=settings["workers"]),
        run_config=RunConfig(storage_path=settings["folder"]),
    ).fit()


if __name__ == "__main__":
    main()
