"""Combinations are PEFT's own, plain adapters on disk, and the same for the same seed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from raylora.errors import InvalidAdapter
from raylora.lora import manifest
from raylora.lora.adapter_config import CONFIG, WEIGHTS, read
from raylora.lora.bank.bank import Bank
from raylora.lora.combining import Method, combine
from raylora.lora.integrity import verify
from raylora.lora.sources import LocalModel
from raylora.lora.weights import names

LOCAL = LocalModel(Path("tiny"), "tiny", "rev-1", "tiny")


@pytest.fixture
def combined(tiny_config, tmp_path: Path):
    def combining(name: str, *directories: Path, **given: Any) -> Path:
        options: dict[str, Any] = {
            "method": Method.LINEAR,
            "density": 0.5,
            "seed": 0,
            "lineage": {"parents": []},
        }
        options |= {"weights": [1 / len(directories)] * len(directories)} | given
        combine(LlamaForCausalLM(tiny_config), LOCAL, directories, tmp_path / name, **options)
        return tmp_path / name

    return combining


def product(directory: Path, layer: str) -> torch.Tensor:
    tensors, (a, b) = load_file(directory / WEIGHTS), names(layer)
    return read(directory / CONFIG).scale(layer) * tensors[b] @ tensors[a]


def test_linear_adds_up_the_scaled_matrices(make_adapter, combined, tiny_config) -> None:
    first = make_adapter("first", seed=1, lora_alpha=8)
    second = make_adapter("second", seed=2, lora_alpha=16, use_rslora=True)
    both = combined("both", first, second, weights=[0.75, 0.25], lineage={"parents": ["a@1"]})
    verify(both, base_config=tiny_config, base_revision="rev-1")
    assert manifest.read(both).lineage["parents"] == ["a@1"]
    layer = "model.layers.0.self_attn.q_proj"
    key_a, key_b = names(layer)
    wanted = {key_a: torch.zeros(()), key_b: torch.zeros(())}
    for directory, weight in ((first, 0.75), (second, 0.25)):
        factor = (weight * read(directory / CONFIG).scale(layer)) ** 0.5
        for key in wanted:
            wanted[key] = wanted[key] + factor * load_file(directory / WEIGHTS)[key]
    torch.testing.assert_close(product(both, layer), wanted[key_b] @ wanted[key_a])


def test_the_sum_of_matrices_is_not_the_sum_of_products(make_adapter, combined) -> None:
    same = make_adapter("same", seed=3)
    both = combined("both", same, same)
    layer = "model.layers.1.mlp.up_proj"
    torch.testing.assert_close(product(both, layer), 2 * product(same, layer))


@pytest.mark.parametrize("method", [Method.TIES, Method.DARE_LINEAR, Method.DARE_TIES])
def test_ties_and_dare_drop_values(make_adapter, combined, tiny_config, method: Method) -> None:
    pair = make_adapter("first", seed=1), make_adapter("second", seed=2)
    kept = {"method": method, "density": 0.2}
    found = [combined(f"{seed}-{i}", *pair, seed=seed, **kept) for seed in (0, 1) for i in (0, 1)]
    for directory in found:
        verify(directory, base_config=tiny_config)
    bits = [(directory / WEIGHTS).read_bytes() for directory in found]
    assert bits[0] == bits[1] and bits[2] == bits[3]
    assert (bits[0] == bits[2]) is (method is Method.TIES)
    dropped = load_file(found[0] / WEIGHTS)[names("model.layers.0.mlp.up_proj")[0]] == 0
    assert 0.3 < float(dropped.float().mean()) < 0.9


def test_a_combination_serves_beside_others(make_adapter, combined, tiny_model) -> None:
    both = combined("both", make_adapter("first", seed=1), make_adapter("second", seed=2))
    bank = Bank(tiny_model)
    bank.add("both", both)
    assert bank.keys == ("both",)


def test_what_does_not_go_together_is_refused(make_adapter, combined, tmp_path: Path) -> None:
    pairs = {
        "ranks 4, 8": {"r": 8},
        "4 and others": {"rank_pattern": {"q_proj": 2}},
        "use_dora": {"use_dora": True},
    }
    for reason, fields in pairs.items():
        other = make_adapter(reason, **fields)
        with pytest.raises(InvalidAdapter, match=reason):
            combined("never", make_adapter(f"plain-{reason}"), other)
    assert not (tmp_path / "never").exists()
