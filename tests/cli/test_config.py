"""raylora config, as typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from raylora.cli.main import cli
from raylora.config.compose import load_train

MISTAKES = """\
lora:
  rank: 8
training:
  learning_rate: fast
  epochs: 0
"""


def raylora(*words: str) -> Result:
    return CliRunner().invoke(cli, ["config", *words])


def test_list_names_presets_and_groups() -> None:
    rows = json.loads(raylora("list", "--output", "json").stdout)
    uses = {row["name"]: row["use"] for row in rows}
    assert uses["train/quickstart"] == "raylora submit quickstart"
    assert uses["experiment/quick_test"] == "+experiment=quick_test"
    assert all(row["about"] for row in rows)
    assert "serve/quickstart" in raylora("list").stdout


def test_show_says_where_each_value_comes_from() -> None:
    result = raylora("show", "quickstart", "lora.r=32", "--output", "json")
    values = json.loads(result.stdout)
    assert values["lora.r"] == {"value": 32, "origin": "override lora.r=32", "kind": "override"}
    assert values["outputs"] == {"value": "outputs", "origin": "default", "kind": "default"}
    assert values["name"]["origin"].startswith("configs/train/quickstart.yaml:")
    assert "override lora.r=32" in raylora("show", "quickstart", "lora.r=32").stdout


def test_show_yaml_is_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(raylora("show", "quickstart", "lora.r=32", "--yaml").stdout, encoding="utf-8")
    assert load_train(str(path)).spec == load_train("quickstart", ["lora.r=32"]).spec


def test_show_finds_the_kind() -> None:
    assert json.loads(raylora("show", "serve/quickstart", "-o", "json").stdout)["port"]
    assert json.loads(raylora("show", "quickstart", "--kind", "serve", "-o", "json").stdout)[
        "port"
    ]


def test_validate_several() -> None:
    result = raylora("validate", "quickstart", "serve/quickstart", "-o", "json")
    assert result.exit_code == 0
    assert [row["kind"] for row in json.loads(result.stdout)] == ["train", "serve"]


def test_validate_prints_the_mistakes_of_all_and_the_good_ones(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(MISTAKES, encoding="utf-8")
    result = raylora("validate", str(tmp_path / "a.yaml"), "quickstart", str(tmp_path / "b.yaml"))
    assert result.exit_code == 5
    assert "6 problems" in result.stderr
    assert "quickstart" in result.stdout


@pytest.mark.parametrize("kind", ["train", "serve"])
def test_schema_checks_what_show_prints(kind: str) -> None:
    schema = json.loads(raylora("schema", kind).stdout)
    shown = raylora("show", f"{kind}/quickstart", "--yaml").stdout
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(shown))


def test_three_mistakes_three_errors_exit_5_in_two_seconds(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MISTAKES, encoding="utf-8")
    program = [Path(sys.executable).with_name("raylora"), "config", "validate", path]
    before = os.times()
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    after = os.times()
    assert done.returncode == 5
    assert done.stdout == ""
    blocks = done.stderr.split("\n\n")[1:]
    assert sorted(block.split()[0] for block in blocks) == [
        "lora.rank",
        "training.epochs",
        "training.learning_rate",
    ]
    assert "lora.r" in done.stderr
    assert "a number greater than 0" in done.stderr
    # Of this process only: what else the machine does is not its fault.
    assert sum(after[2:4]) - sum(before[2:4]) < 2
