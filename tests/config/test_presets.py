"""What ships: every file is used, every command in its header works."""

import re
import shlex
from pathlib import Path

import pytest

from raylora.config.compose import load, load_train
from raylora.config.presets import (
    GROUPS,
    Kind,
    headline,
    kind_of,
    locate,
    options,
    presets,
    shipped_root,
)
from raylora.config.train_spec import TrainSpec
from raylora.errors import NotFound

FILES = sorted(shipped_root().rglob("*.yaml"))
COMMAND = re.compile(
    r"^#\s+raylora (submit|sweep|serve up|evaluate|baseline|config show|plan) (\S+)((?: \S+)*)"
)


def commands() -> list[tuple[str, str, list[str]]]:
    found: list[tuple[str, str, list[str]]] = []
    for path in FILES:
        for line in path.read_text(encoding="utf-8").splitlines():
            if match := COMMAND.match(line):
                words = shlex.split(match[3].partition("  ")[0])
                options = [place for place, word in enumerate(words) if word.startswith("--")]
                overrides = words[: options[0]] if options else words
                found.append((f"{match[1]} {match[2]}", match[2], overrides))
    return found


def test_every_file_is_a_preset_or_an_option() -> None:
    known = {f"{folder}/{name}" for folder in (*GROUPS, *Kind) for name in options(folder)}
    assert {str(path.relative_to(shipped_root()).with_suffix("")) for path in FILES} == known
    assert all(headline(name) for name in known)


@pytest.mark.parametrize("kind", Kind)
def test_every_preset_composes(kind: Kind) -> None:
    assert presets(kind)
    for name in presets(kind):
        resolved = load(kind, name)
        assert type(resolved.spec) is kind.spec_type
        assert resolved.path == shipped_root() / kind / f"{name}.yaml"


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_composes(group: str) -> None:
    needed = {
        "model": ["model.id=a", "model.name=a"],
        "data": ["data.train=bundled:home_requests/train"],
    }.get(group, [])
    for name in options(group):
        assert load_train("lora", [f"{group}={name}", *needed])


def test_every_command_in_a_header_composes() -> None:
    assert len(commands()) > 15
    for program, config, overrides in commands():
        if config == "my.yaml":
            continue
        asking = dict.fromkeys(("evaluate", "baseline"), Kind.EVALUATE)
        kinds = {"serve": Kind.SERVE, "sweep": Kind.SWEEP, **asking}
        kind = kinds.get(program.split()[0], Kind.TRAIN)
        assert load(kind, config, overrides), (program, overrides)


def test_the_quickstart_is_qlora_on_two_workers() -> None:
    spec = load_train("quickstart").spec
    assert (spec.name, spec.model.quantization, spec.lora.r) == ("home-requests", "nf4", 16)
    assert (spec.workers.num_workers, spec.workers.zero_stage) == (2, 2)


def test_lora_and_qlora_differ_in_one_field() -> None:
    lora, qlora = (load_train(name).spec.model_dump() for name in ("lora", "qlora"))
    lora["model"]["quantization"] = qlora["model"]["quantization"]
    lora["name"] = qlora["name"]
    assert lora == qlora


def test_a_path_is_a_path_and_a_name_a_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("name: mine\n", encoding="utf-8")
    assert load_train("quickstart").spec.name == "home-requests"
    assert load_train("./quickstart").spec.name == "mine"
    assert load_train("./quickstart").spec == TrainSpec(name="mine")
    for wrong in ("../serve/quickstart", "serve/quickstart", "", "/", "lora.yaml"):
        with pytest.raises(NotFound):
            locate(wrong, Kind.TRAIN)


def test_the_folder_tells_the_kind() -> None:
    assert kind_of("serve/quickstart") is Kind.SERVE
    assert kind_of("somewhere/serve/mine.yaml") is Kind.SERVE
    assert kind_of("sweep/quickstart-sweep") is Kind.SWEEP
    assert kind_of("quickstart") is kind_of("train/mine.yaml") is Kind.TRAIN
