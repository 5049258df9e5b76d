"""A hundred damaged adapters: refused at once, with the fault by name, and in no memory."""

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.bars.bar import Bar, at_most, holds
from benchmarks.registry.corruptions import KINDS, Manifest, corrupt, draw, found_in
from raylora.config.lora_spec import LoraSpec
from raylora.errors import InvalidAdapter
from raylora.lora.attach import attach, save_adapter
from raylora.lora.integrity import verify
from raylora.lora.sources import LocalModel

COUNT = 100
SECONDS, MEGABYTES = 1.0, 20.0
SMOLLM2_LIKE: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
"""Of the demo's size, so that reading its weights costs what it costs."""


def measure() -> Iterator[Bar]:
    """Registered ones, half of them with a manifest that fits the damage; then imports."""
    seed = int(time.time())
    structural = [kind for kind, (_, alone) in KINDS.items() if alone]
    with tempfile.TemporaryDirectory(prefix="rlb-") as folder:
        root, config = Path(folder), LlamaConfig(**SMOLLM2_LIKE)
        good = _good(root / "good", config)
        verify(good, base_config=config)  # imports, and what is made once
        yield from _measured("registered", good, root, config, draw(COUNT, seed), seed)
        kinds = draw(COUNT, seed + 1, structural)
        yield from _measured("import", good, root, config, kinds, seed)
        yield holds("adapter of another base", int(_other_base(good)), 1, "refused by its shapes")


@dataclass(frozen=True)
class Tried:
    """One damaged adapter, and what became of it."""

    kind: str
    refused: bool
    named: bool
    seconds: float
    """Of the CPU, since others may use the machine."""


def _measured(
    name: str,
    good: Path,
    root: Path,
    config: LlamaConfig,
    kinds: list[tuple[str, int]],
    seed: int,
) -> Iterator[Bar]:
    process = psutil.Process()
    before = process.memory_info().rss
    tries = [_tried(good, root, kind, s, config, foreign=name == "import") for kind, s in kinds]
    grown = max(0, process.memory_info().rss - before) / 1e6
    unnamed = Counter(tried.kind for tried in tries if not tried.named)
    slowest = max(tries, key=lambda tried: tried.seconds)
    bar, detail = f"corrupt adapters, {name}", f"seed {seed}"
    refused = sum(tried.refused for tried in tries)
    yield holds(f"{bar}: refused", refused, COUNT, "refused", detail)
    detail = f"not: {dict(unnamed)}" if unnamed else detail
    yield holds(f"{bar}: named", COUNT - unnamed.total(), COUNT, "name the fault", detail)
    yield at_most(f"{bar}: slowest", [slowest.seconds], SECONDS, " s", slowest.kind)
    yield at_most(f"{bar}: memory", [grown], MEGABYTES, " MB", "more after all of them")


def _tried(
    good: Path, root: Path, kind: str, seed: int, config: LlamaConfig, *, foreign: bool
) -> Tried:
    """Damage a copy and ask."""
    dice = random.Random(seed)
    copy = root / "copy"
    shutil.copytree(good, copy)
    then = Manifest.GONE if foreign else dice.choice([Manifest.KEPT, Manifest.FITTED])
    corruption = corrupt(copy, kind, dice, then)
    reason = None
    began = time.process_time()
    try:
        verify(copy, base_config=config, manifest_required=not foreign)
    except InvalidAdapter as error:
        reason = str(error)
    seconds = time.process_time() - began
    shutil.rmtree(copy)
    named = reason is not None and found_in(reason, corruption)
    return Tried(kind, reason is not None, named, seconds)


def _good(directory: Path, config: LlamaConfig) -> Path:
    torch.manual_seed(0)
    adapted = attach(LlamaForCausalLM(config), LoraSpec(r=16), 0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.02)
    save_adapter(adapted, directory, LocalModel(directory, "demo", "rev-1", "demo"), {})
    return directory


def _other_base(good: Path) -> bool:
    wider = LlamaConfig(**dict[str, Any](SMOLLM2_LIKE, intermediate_size=2048))
    try:
        verify(good, base_config=wider)
    except InvalidAdapter as error:
        return "base" in str(error)
    return False
