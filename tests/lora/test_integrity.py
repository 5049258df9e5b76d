"""Every damaged or hostile adapter is refused within a second, with the fault by name."""

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raylora.errors import InvalidAdapter
from raylora.lora import manifest
from raylora.lora.adapter_config import CHAT_TEMPLATE, chat_template
from raylora.lora.integrity import verify

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Q_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
Q_B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.fixture
def adapter(make_adapter) -> Path:
    return make_adapter("good", r=4, lora_alpha=8)


def reseal(directory: Path) -> None:
    """Make the manifest fit the damage, so that the checks behind it are reached."""
    lineage = manifest.read(directory).lineage
    manifest.write(directory, lineage)


def edit_weights(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        tensors = load_file(directory / WEIGHTS)
        change(tensors)
        save_file(tensors, directory / WEIGHTS)
        reseal(directory)

    return damage


def edit_config(**changes: object) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        config = json.loads((directory / CONFIG).read_text())
        (directory / CONFIG).write_text(json.dumps(config | changes))
        reseal(directory)

    return damage


def write_weights(content: bytes) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / WEIGHTS).write_bytes(content)
        reseal(directory)

    return damage


def test_a_good_adapter_gives_its_facts(adapter: Path, tiny_config) -> None:
    facts = verify(adapter, base_config=tiny_config, base_revision="rev-1")
    assert (facts.r, facts.alpha, facts.layers, facts.dtype) == (4, 8, 14, "F32")
    assert " ".join(facts.targets) == "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj"
    assert facts.bytes == (adapter / WEIGHTS).stat().st_size
    assert facts.parameters == sum(t.numel() for t in load_file(adapter / WEIGHTS).values())
    assert (facts.base, facts.base_revision) == ("tiny", "rev-1")
    assert facts.sha256 == manifest.read(adapter).files[WEIGHTS].sha256
    assert facts.lineage["run_id"] == "good"


def _truncate(directory: Path) -> None:
    os.truncate(directory / WEIGHTS, (directory / WEIGHTS).stat().st_size - 100)


def _flip(directory: Path) -> None:
    content = bytearray((directory / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (directory / WEIGHTS).write_bytes(content)


def _pickle(directory: Path) -> None:
    (directory / "adapter_model.bin").write_bytes(pickle.dumps({}))
    (directory / WEIGHTS).unlink()
    reseal(directory)


def _outside(directory: Path) -> None:
    target = directory.parent / "weights"
    (directory / WEIGHTS).rename(target)
    (directory / WEIGHTS).symlink_to(target)


def _truncate_and_reseal(directory: Path) -> None:
    _truncate(directory)
    reseal(directory)


def _path_in_manifest(directory: Path) -> None:
    path = directory / manifest.NAME
    path.write_text(path.read_text().replace(f'"{WEIGHTS}"', f'"../good/{WEIGHTS}"'))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, r"adapter_model.safetensors has \d+ bytes, raylora.json says"),
        (_truncate_and_reseal, "not a whole safetensors file"),
        (_flip, "does not match its sha256"),
        (_pickle, "pickled weights can run code"),
        (_outside, "adapter_model.safetensors is not a regular file"),
        (_path_in_manifest, "not a plain path inside the directory"),
        (write_weights(b""), "not a whole safetensors file"),
        (write_weights(b"\xff" * 64), "a header of .* bytes is not that of an adapter"),
        (write_weights((2).to_bytes(8, "little") + b"{}"), "holds no tensors"),
        (
            edit_weights(lambda t: t.pop(Q_B)),
            "1 of 28 tensors are missing, such as .*q_proj.lora_B",
        ),
        (edit_weights(lambda t: t.clear()), "holds no tensors"),
        (edit_weights(lambda t: t.update(head=torch.ones(2, 2))), "unexpected tensor head"),
        (
            edit_weights(lambda t: t.update({Q_A: torch.ones(5, 64)})),
            r"q_proj.lora_A.weight has shape \[5, 64\], config and base ask for \[4, 64\]",
        ),
        (edit_weights(lambda t: t.update({Q_A: torch.ones(4)})), "are not both matrices"),
        (edit_weights(lambda t: t.update({Q_A: torch.ones(0, 64)})), r"has shape \[0, 64\]"),
        (
            edit_weights(lambda t: t[Q_A][1, 1].fill_(float("nan"))),
            "q_proj.lora_A.weight holds NaN",
        ),
        (
            edit_weights(lambda t: t[Q_B][0, 0].fill_(float("inf"))),
            "q_proj.lora_B.weight holds NaN",
        ),
        (
            edit_weights(lambda t: [x.zero_() for key, x in t.items() if "lora_B" in key]),
            "every lora_B is zero",
        ),
        (
            edit_weights(lambda t: t.update({key: x.to(torch.int8) for key, x in t.items()})),
            "tensors are I8, not one of BF16, F16, F32",
        ),
        (edit_config(r=10**6), "r: .*less than or equal to 256.*1000000"),
        (edit_config(r="16"), "r: Input should be a valid integer"),
        (edit_config(r=8), "config and base ask for"),
        (edit_config(lora_alpha=float("inf")), "adapter_config.json"),
        (edit_config(surprise=1), "unknown key surprise"),
        (edit_config(peft_type="IA3"), "peft_type: Input should be 'LORA'"),
        (edit_config(use_dora=True), "use_dora"),
        (edit_config(modules_to_save=["lm_head"]), "modules_to_save"),
        (edit_config(auto_mapping={"base_model_class": "os.system"}), "auto_mapping"),
        (edit_config(init_lora_weights="pissa"), "init_lora_weights"),
        (edit_config(layer_replication=[[0, 1]]), "layer_replication"),
        (edit_config(target_modules="(a+)+$"), "target_modules: Input should be a valid"),
        (edit_config(target_modules=["(a+)+$"]), "target_modules"),
        (edit_config(target_modules=["q_proj", "nothing"]), "missing|unexpected tensor"),
        (lambda d: (d / manifest.NAME).unlink(), "there is no raylora.json"),
    ],
)
def test_a_bad_adapter_is_refused_at_once(adapter: Path, tiny_config, damage, reason) -> None:
    damage(adapter)
    began = time.process_time()
    with pytest.raises(InvalidAdapter, match=f"(?s){reason}"):
        verify(adapter, base_config=tiny_config)
    assert time.process_time() - began < 1


def test_without_a_base_the_file_must_still_agree_with_its_config(adapter: Path) -> None:
    verify(adapter)
    edit_weights(lambda tensors: tensors.pop(Q_A))(adapter)
    with pytest.raises(InvalidAdapter, match="1 of 28 tensors are missing"):
        verify(adapter)


def test_the_adapter_of_another_base_is_refused(adapter: Path, tiny_config) -> None:
    wide = type(tiny_config)(**{**tiny_config.to_dict(), "intermediate_size": 256})
    with pytest.raises(InvalidAdapter, match=r"config and base ask for \[4, 256\]"):
        verify(adapter, base_config=wide)
    deep = type(tiny_config)(**{**tiny_config.to_dict(), "num_hidden_layers": 3})
    with pytest.raises(InvalidAdapter, match="14 of 42 tensors are missing"):
        verify(adapter, base_config=deep)
    with pytest.raises(
        InvalidAdapter, match="trained on tiny at rev-1, but this base is at rev-2"
    ):
        verify(adapter, base_revision="rev-2")


def test_an_adapter_of_another_tool_needs_no_manifest_if_told_so(adapter: Path) -> None:
    (adapter / manifest.NAME).unlink()
    facts = verify(adapter, manifest_required=False)
    assert (facts.sha256, facts.base) == ("", "tiny")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapter, match="gone is not a directory"):
        verify(tmp_path / "gone")


def test_huge_sizes_in_a_header_are_not_allocated(adapter: Path, tiny_config) -> None:
    entry = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    header = json.dumps({Q_A: entry}).encode()
    write_weights(len(header).to_bytes(8, "little") + header)(adapter)
    with pytest.raises(InvalidAdapter, match="not a whole safetensors file"):
        verify(adapter, base_config=tiny_config)


def test_a_template_is_text_of_a_sane_size_or_refused(tmp_path: Path) -> None:
    file = tmp_path / CHAT_TEMPLATE
    assert chat_template(tmp_path) is None
    file.write_text("{{ messages }} \u00fc", encoding="utf-8")
    assert chat_template(tmp_path) == "{{ messages }} \u00fc"
    for content, said in ((b"\xff", "not UTF-8"), (b"x" * (1 << 21), "2097152 bytes")):
        file.write_bytes(content)
        with pytest.raises(InvalidAdapter, match=said):
            chat_template(tmp_path)
