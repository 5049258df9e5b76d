"""Damages drawn at random: none is taken, whatever the draw, and each is named."""

import random
import shutil
import time
from pathlib import Path

import pytest
from benchmarks.registry.corruptions import KINDS, Manifest, corrupt, found_in
from transformers import LlamaConfig, LlamaForCausalLM

from raylora.config.lora_spec import LoraSpec
from raylora.errors import InvalidAdapter
from raylora.lora.attach import attach, save_adapter
from raylora.lora.integrity import verify
from raylora.lora.sources import LocalModel


@pytest.fixture(scope="module")
def good(tiny_config: LlamaConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny model."""
    adapted = attach(LlamaForCausalLM(tiny_config), LoraSpec(r=4), 0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    directory = tmp_path_factory.mktemp("corruptions") / "good"
    save_adapter(adapted, directory, LocalModel(directory, "tiny", "rev-1", "tiny"), {})
    return directory


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_is_taken(
    good: Path, tiny_config: LlamaConfig, tmp_path: Path, kind: str
) -> None:
    thens = list(Manifest) if KINDS[kind][1] else [Manifest.KEPT, Manifest.FITTED]
    for seed in range(3):
        for then in thens:
            copy = tmp_path / "copy"
            shutil.copytree(good, copy)
            damage = corrupt(copy, kind, random.Random(seed), then)
            began = time.process_time()
            with pytest.raises(InvalidAdapter) as caught:
                verify(copy, base_config=tiny_config, manifest_required=then is not Manifest.GONE)
            assert time.process_time() - began < 1
            assert found_in(str(caught.value), damage), caught.value
            shutil.rmtree(copy)


def test_what_is_whole_is_taken(good: Path, tiny_config: LlamaConfig, tmp_path: Path) -> None:
    verify(good, base_config=tiny_config)
    shutil.copytree(good, tmp_path / "copy")
    (tmp_path / "copy" / "raylora.json").unlink()
    verify(tmp_path / "copy", base_config=tiny_config, manifest_required=False)
