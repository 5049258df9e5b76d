"""raylora serve keys."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raylora.cli.main import cli
from raylora.config.key_file import digest, read_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def keys(file: Path):
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["serve", "keys", *arguments, "--file", str(file)])

    return run


def test_a_key_is_printed_once_and_alone_on_stdout(keys, file):
    result = keys("add", "shop", "--adapter", "home-*", "--requests-per-minute", "60")
    assert result.exit_code == 0
    secret = result.stdout.strip()
    [key] = read_keys(file).keys
    assert key.sha256 == digest(secret)
    assert (key.id, key.adapters, key.requests_per_minute) == ("shop", ("home-*",), 60)
    assert not key.admin
    assert f"keys={file}" in result.stderr
    shown = keys("list").stdout
    assert "shop" in shown
    assert secret not in shown


def test_programs_get_json_without_hashes(keys):
    made = json.loads(keys("add", "a", "--admin", "-o", "json").stdout)
    assert made["key"] == "a"
    [listed] = json.loads(keys("list", "-o", "json").stdout)
    assert listed["admin"] is True
    assert "sha256" not in listed


def test_a_removed_key_is_gone(keys, file):
    keys("add", "a")
    assert keys("remove", "a").exit_code == 0
    assert read_keys(file).keys == ()
    assert keys("remove", "a").exit_code == 5


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["add", "my shop"], 5, "no name of a key"),
        (["add", "shop", "--adapter", "a/b"], 5, "no pattern"),
        (["add", "shop", "--tokens-per-minute", "0"], 2, "tokens-per-minute"),
        (["list"], 5, "no key file"),
    ],
)
def test_what_is_wrong_is_said(keys, file, arguments, code, said):
    result = keys(*arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert not file.exists()


def test_the_default_file_is_in_raylora_home(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
    assert CliRunner().invoke(cli, ["serve", "keys", "add", "a"]).exit_code == 0
    assert [key.id for key in read_keys(tmp_path / "home" / "keys.json").keys] == ["a"]
