"""A registry with adapters of the tiny base."""

from collections.abc import Mapping
from pathlib import Path

import torch

from raylora.config.lora_spec import LoraSpec
from raylora.config.model_spec import ModelSpec
from raylora.config.train_spec import TrackingSpec
from raylora.lora.attach import attach, save_adapter
from raylora.lora.base import load_base
from raylora.lora.devices import pick
from raylora.lora.sources import fetch
from raylora.tracking.adapters.promotion import promote
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.location import tracking_uri
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import open_run


def register(
    outputs: Path, model: ModelSpec, scratch: Path, name: str, system_prompt: str, seed: int = 1
) -> str:
    """Make an adapter of random weights the champion of its name; gives name@version."""
    local = fetch(model, scratch / "cache")
    peft_model = attach(load_base(local, model, pick()), LoraSpec(r=4), seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for key, parameter in peft_model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.5)
    lineage: Mapping[str, object] = {"data": {"system_prompt": system_prompt}}
    run_id = f"20260101-00000{seed}-abcdef"
    save_adapter(peft_model, scratch / run_id, local, dict(lineage))
    uri = tracking_uri(TrackingSpec(), str(outputs))
    run = open_run(uri, "default", run_id, name, params={}, tags={})
    registry = Registry(uri)
    version = registry.register(name, run, scratch / run_id, tags={})
    promote(registry, str(version))
    run.finish(RunStatus.FINISHED)
    return str(version)
