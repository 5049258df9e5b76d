"""Ways to damage an adapter directory, drawn at random, and what a refusal has to name."""

import json
import pickle
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from raylora.lora import manifest

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
BY_HASH = rf"({WEIGHTS}|{CONFIG}) (has \d+ bytes|is missing)|content of ({WEIGHTS}|{CONFIG})"
"""What a manifest says of a file that it does not fit."""
Damage = Callable[[Path, random.Random], str]
"""Damages the directory; a pattern that the reason of its refusal has."""


@dataclass(frozen=True)
class Corruption:
    """One damaged directory."""

    kind: str
    names: str
    """What the reason has to match."""


class Manifest(StrEnum):
    """What becomes of the manifest of a damaged adapter."""

    KEPT = "kept"
    """As it was: hashes tell."""
    FITTED = "fitted"
    """Written anew, as an attacker would: what is in the files has to tell."""
    GONE = "gone"
    """As another tool leaves it."""


def corrupt(
    directory: Path, kind: str, dice: random.Random, then: Manifest = Manifest.KEPT
) -> Corruption:
    """Damage a copy of a good adapter."""
    names = KINDS[kind][0](directory, dice)
    if then is Manifest.GONE:
        (directory / manifest.NAME).unlink(missing_ok=True)
    elif then is Manifest.FITTED and kind not in OF_THE_MANIFEST:
        manifest.write(directory, manifest.read(directory).lineage)
    else:
        names = f"{names}|{BY_HASH}"
    return Corruption(kind, names)


def found_in(reason: str, corruption: Corruption) -> bool:
    """Whether a reason names the fault."""
    return re.search(corruption.names, reason, re.DOTALL) is not None


def _truncated(directory: Path, dice: random.Random) -> str:
    file = dice.choice([directory / WEIGHTS, directory / CONFIG])
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(dice.randrange(size))
    return file.name


def _flipped(directory: Path, dice: random.Random) -> str:
    file = dice.choice([directory / WEIGHTS, directory / CONFIG])
    content = bytearray(file.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    file.write_bytes(content)
    return file.name


def _missing_file(directory: Path, dice: random.Random) -> str:
    file = dice.choice([directory / WEIGHTS, directory / CONFIG])
    file.unlink()
    return file.name


def _extra_file(directory: Path, dice: random.Random) -> str:
    name = f"extra-{dice.randrange(1000)}.txt"
    (directory / name).write_text("x", encoding="utf-8")
    return name


def _tensors(change: Callable[[dict[str, Any], str], None], names: str) -> Damage:
    def damage(directory: Path, dice: random.Random) -> str:
        held = load_file(directory / WEIGHTS)
        key = dice.choice(sorted(held))
        change(held, key)
        save_file(held, directory / WEIGHTS, metadata={"format": "pt"})
        return names.replace("KEY", re.escape(key))

    return damage


def _missing_key(held: dict[str, Any], key: str) -> None:
    held.pop(key)


def _extra_key(held: dict[str, Any], key: str) -> None:
    held[key.replace("lora_", "lora_X")] = held[key].clone()


def _wrong_rank(held: dict[str, Any], key: str) -> None:
    held[key] = torch.cat([held[key], held[key]], dim=0 if "lora_A" in key else 1)


def _no_number(value: float) -> Callable[[dict[str, Any], str], None]:
    def change(held: dict[str, Any], key: str) -> None:
        held[key].view(-1)[len(held[key].view(-1)) // 2] = value

    return change


def _untrained(held: dict[str, Any], key: str) -> None:
    for name, tensor in held.items():
        if "lora_B" in name:
            tensor.zero_()


def _other_dtype(held: dict[str, Any], key: str) -> None:
    for name in held:
        held[name] = held[name].to(torch.float64)


def _config(key: str, *values: Any) -> Damage:
    def damage(directory: Path, dice: random.Random) -> str:
        config = json.loads((directory / CONFIG).read_text("utf-8"))
        config[key] = dice.choice(values)
        (directory / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        return rf"\b{key}\b"

    return damage


def _pickled(directory: Path, dice: random.Random) -> str:
    name = f"adapter_model{dice.choice(['.bin', '.pt', '.pkl', '.pth', '.ckpt'])}"
    (directory / name).write_bytes(pickle.dumps({"a": 1}))
    return rf"{re.escape(name)}.*pickle"


def _link(directory: Path, dice: random.Random) -> str:
    file = dice.choice([directory / WEIGHTS, directory / CONFIG])
    outside = directory.parent / f"outside-{dice.randrange(10**9)}"
    file.rename(outside)
    file.symlink_to(outside)
    return f"{file.name}.*not a regular file"


def _path_in_manifest(directory: Path, dice: random.Random) -> str:
    path = directory / manifest.NAME
    said = json.loads(path.read_text("utf-8"))
    name = dice.choice(["../../etc/passwd", "/etc/passwd", "a\\b", "x/../../y", "nul\0"])
    said["files"][name] = said["files"][WEIGHTS]
    path.write_text(json.dumps(said), encoding="utf-8")
    return "not a plain path"


def _no_manifest(directory: Path, dice: random.Random) -> str:
    (directory / manifest.NAME).unlink()
    return r"there is no raylora\.json"


def _header(directory: Path, dice: random.Random) -> str:
    size = dice.choice([2**62, 2**40, 10**9, 10**8])
    (directory / WEIGHTS).write_bytes(size.to_bytes(8, "little") + b"{" * 64)
    return WEIGHTS


def _huge_shape(directory: Path, dice: random.Random) -> str:
    side = dice.choice([10**5, 10**6])
    entry = {"dtype": "F32", "shape": [side, side], "data_offsets": [0, 4 * side * side]}
    header = json.dumps({"base_model.model.x.lora_A.weight": entry}).encode()
    (directory / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    return WEIGHTS


def _nested(directory: Path, dice: random.Random) -> str:
    (directory / CONFIG).write_text("[" * dice.randint(10_000, 500_000), encoding="utf-8")
    return CONFIG


KINDS: dict[str, tuple[Damage, bool]] = {
    "truncated": (_truncated, False),
    "flipped": (_flipped, False),
    "missing file": (_missing_file, True),
    "extra file": (_extra_file, False),
    "missing key": (_tensors(_missing_key, "missing"), True),
    "extra key": (_tensors(_extra_key, "unexpected tensor|missing"), True),
    "wrong rank": (_tensors(_wrong_rank, "KEY has shape"), True),
    "NaN": (_tensors(_no_number(float("nan")), "KEY holds NaN"), True),
    "infinite": (_tensors(_no_number(float("inf")), "KEY holds NaN or infinite"), True),
    "untrained": (_tensors(_untrained, "every lora_B is zero"), True),
    "other dtype": (_tensors(_other_dtype, "tensors are F64"), True),
    "rank bomb": (_config("r", 10**6, 10**9, -1, 0, "8", 2.5), True),
    "code in config": (
        _config("auto_mapping", {"base_model_class": "os.system", "parent_library": "os"}),
        True,
    ),
    "layers replicated": (_config("layer_replication", [[0, 10**6]], [[0, 4], [2, 5]]), True),
    "expression": (_config("target_modules", "(a+)+$", ["(a+)+$"], []), True),
    "unknown key": (_config("surprise", 1, "x", [1]), True),
    "other method": (_config("peft_type", "IA3", "PROMPT_TUNING", 7), True),
    "pickle": (_pickled, True),
    "link": (_link, True),
    "path": (_path_in_manifest, False),
    "no manifest": (_no_manifest, False),
    "header bomb": (_header, True),
    "shape bomb": (_huge_shape, True),
    "nested config": (_nested, True),
}
"""Each with whether it is a fault without a manifest, too."""
OF_THE_MANIFEST = ("path", "no manifest", "truncated", "flipped", "extra file", "link")
"""Damages that a manifest that fits would undo or cannot be written for."""


def draw(count: int, seed: int, kinds: Sequence[str] = tuple(KINDS)) -> list[tuple[str, int]]:
    """So many kinds, each once before any twice, and a seed for each."""
    dice = random.Random(seed)
    turns = [dice.sample(list(kinds), len(kinds)) for _ in range(count // len(kinds) + 1)]
    return [(kind, dice.randrange(2**32)) for turn in turns for kind in turn][:count]
