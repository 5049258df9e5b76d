"""The pattern of Ray's guide: Tune drives a TorchTrainer for each trial, which loads and trains.

    python -m benchmarks.peers.tune_torch_trainer settings.json

The workers' loop is transformers' Trainer with PEFT. Settings: {"model": DIR, "dtype": "float32",
"tokens": FILE, "batch": N, "steps": N, "seed": N, "trials": [{"lora.r": 8, "lora.lora_alpha": 16,
"training.learning_rate": 1e-3}, ...], "at_once": N, "folder": DIR}. Prints {"trials": [...]} at
the end. RAY_ADDRESS names the cluster.
"""

import json
import sys
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray import tune
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

DRIVER = {"memory": 200 * 1024**2}
"""Of a trial's driver. A CPU each would leave none for the workers, and all would wait."""


def train(config: dict[str, Any]) -> None:
    """What each worker does."""
    from peft import LoraConfig, get_peft_model
    from ray.train.huggingface.transformers import prepare_trainer
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )

    class Report(TrainerCallback):
        def on_log(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            logs: dict[str, float] | None = None,
            **given: object,
        ) -> None:
            if logs and "loss" in logs:
                ray.train.report({"step": state.global_step, "loss": logs["loss"]})

    settings, changed = config["settings"], config["changed"]
    lines = Path(settings["tokens"]).read_text(encoding="utf-8").splitlines()
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=settings["dtype"])
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    lora = LoraConfig(
        r=changed["lora.r"],
        lora_alpha=changed["lora.lora_alpha"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer = Trainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(
            output_dir="trained",
            use_cpu=True,
            per_device_train_batch_size=settings["batch"],
            max_steps=settings["steps"],
            learning_rate=changed["training.learning_rate"],
            warmup_steps=0.05,  # a share of all steps
            seed=settings["seed"],
            logging_steps=settings["steps"],
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=[json.loads(line) for line in lines],  # type: ignore[arg-type]
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        callbacks=[Report()],
    )
    prepare_trainer(trainer).train()


def run_trial(config: dict[str, Any]) -> None:
    """What Tune runs for each trial: the driver of a Ray Train run."""
    name = tune.get_context().get_trial_id()
    TorchTrainer(
        train,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name=f"train-{name}",
            storage_path=config["settings"]["folder"],
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def main() -> None:
    """Run the trials on the cluster."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    ray.init(log_to_driver=False, logging_level="error")
    results = tune.Tuner(
        tune.with_resources(run_trial, DRIVER),
        param_space={"settings": settings, "changed": tune.grid_search(settings["trials"])},
        tune_config=tune.TuneConfig(max_concurrent_trials=settings["at_once"]),
        run_config=tune.RunConfig(storage_path=settings["folder"], verbose=0),
    ).fit()
    found: list[dict[str, Any]] = []
    for result in results:
        if result.error is not None:
            raise result.error
        metrics = result.metrics or {}
        found.append(
            {
                "settings": (result.config or {})["changed"],
                "step": metrics["step"],
                "loss": metrics["loss"],
            }
        )
    sys.stdout.write(json.dumps({"trials": found}) + "\n")


if __name__ == "__main__":
    main()
